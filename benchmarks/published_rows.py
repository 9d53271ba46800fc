"""Step times that others have published, as `benchmarks/data` has them: read, and checked against themselves."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from hybridflow.config.schema import Recompute

DATA = Path(__file__).with_name("data")
STEPS = DATA / "nemo_rl_steps.csv"
SOURCES = DATA / "nemo_rl_sources.yaml"


_KINDS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: text == "yes",
    "Recompute": Recompute,
}


@dataclass(frozen=True)
class PublishedStep:
    """A published step: the run's layout, its recipe, and the seconds that a step took.

    Attributes:
        steps_off: how many steps old the weights may be that its rows were generated with.
        max_tokens: of a sequence, prompt and response.
        response_tokens: mean of a response.
        rollouts, train_rows: rows that are generated in a step, and that an optimizer's step learns from.
        tokens_per_gpu_s: as published: tokens of a step / (step_s · gpus).
        generation_gpus: that only generate; 0: all generate and train.
        train_micro_rows, score_micro_rows: longest rows that a micro-batch has room for.
        score_passes: forward passes over all rows before learning.
    """

    release: str
    system: str
    precision: str
    model: str
    steps_off: int
    max_tokens: int
    response_tokens: float
    gpus: int
    rollouts: int
    train_rows: int
    generation_tensor: int
    generation_pipeline: int
    tensor: int
    context: int
    expert: int
    pipeline: int
    tokens_per_gpu_s: float
    step_s: float
    generation_gpus: int
    recompute: Recompute
    train_micro_rows: int
    score_micro_rows: int
    score_passes: int
    packed: bool
    memory_fraction: float

    @property
    def case(self) -> tuple[object, ...]:
        """What rows of one run have alike in all releases: a prediction must have seen none of them."""
        return (self.model, self.system, self.precision, self.steps_off, self.gpus, self.max_tokens)

    @property
    def name(self) -> str:
        """Return it in a line."""
        mode = "sync" if not self.steps_off else f"{self.steps_off} off"
        return f"{self.model} {self.system} x {self.gpus} {self.precision} {mode}"

    @property
    def training_gpus(self) -> int:
        """Return the GPUs that train."""
        return self.gpus - self.generation_gpus

    @property
    def data(self) -> int:
        """Return the training replicas."""
        return self.training_gpus // (self.tensor * self.context * self.pipeline)

    @property
    def prompt_tokens(self) -> float:
        """Return the mean tokens of a prompt that the published rate leaves beside the response.

        Of some rows it does not: rate and seconds are means over other steps (the page says so).
        """
        return self.tokens_per_gpu_s * self.gpus * self.step_s / self.rollouts - self.response_tokens


@cache
def sources() -> dict[str, Any]:
    """Read where the steps are from, and their systems and models."""
    loaded: dict[str, Any] = yaml.safe_load(SOURCES.read_text("utf-8"))
    return loaded


def published_steps() -> list[PublishedStep]:
    """Read the rows that can be predicted.

    Raises ValueError for a row that contradicts itself; the message has its line.
    """
    left_out = sources()["left_out"]
    with STEPS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        _step(row, f"{STEPS.name}, line {line}")
        for line, row in enumerate(rows, start=2)
        if row["model"] not in left_out and row["algorithm"] not in left_out
    ]


def _step(row: dict[str, str], where: str) -> PublishedStep:
    values = {name: _KINDS[kind](row[name]) for name, kind in PublishedStep.__annotations__.items()}
    step = PublishedStep(**values)
    fault = _fault(step)
    if fault:
        raise ValueError(f"{where}: {fault}")
    return step


def _fault(step: PublishedStep) -> str:
    """Say what a row says that cannot be."""
    ranks = step.tensor * step.context * step.pipeline
    generating = step.generation_gpus or step.gpus
    tokens = step.prompt_tokens + step.response_tokens
    if step.training_gpus % ranks:
        return f"{step.training_gpus} GPUs train in replicas of {ranks}"
    if generating % (step.generation_tensor * step.generation_pipeline):
        return f"{generating} GPUs generate in replicas of {step.generation_tensor * step.generation_pipeline}"
    if (step.tensor * step.context * step.data) % step.expert:
        return f"experts are shared out over {step.expert} of {step.tensor * step.context * step.data} ranks of a stage"
    if step.rollouts % step.train_rows:
        return f"{step.rollouts} rows are learned from {step.train_rows} at a time"
    if not step.response_tokens < tokens < step.max_tokens:
        return f"rate and seconds make {tokens:.0f} tokens a row, responses have {step.response_tokens}"
    return ""
