"""What hybridflow and TRL are both given: a model, prompts, sizes and settings; and how each is told to take a step."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybridflow import preflight
from hybridflow.cli import model
from hybridflow.config.schema import Config
from hybridflow.registry import import_plugins
from hybridflow.tasks import Prompts
from hybridflow.trainer.task_rows import load_task

PROMPTS = 4
SAMPLES = 8
TOKENS = 64
THREADS = 2
KL_COEF = 0.04
ROWS = PROMPTS * SAMPLES
STEPS = 1000  # more than are asked for


@dataclass(frozen=True)
class Case:
    """One model under GRPO.

    Attributes:
        model: what `hybridflow model` is told.
        settings: of hybridflow; what TRL has too is read from them.
        trl_rows: rows of a pass of TRL's. All rows are fastest where their memory is there beside ours; of a real model
            passes of 8 take as long.
    """

    model: tuple[str, ...]
    settings: tuple[str, ...]
    trl_rows: int = ROWS

    def make_model(self, folder: str) -> None:
        """Write the model folder. Raises RuntimeError if that fails."""
        if model.run([*self.model, "--out", folder]):
            raise RuntimeError(f"hybridflow model {' '.join(self.model)} failed")

    def config(self, folder: str, *more: str) -> Config:
        """Compose hybridflow's settings for the model in that folder, and import their plugins."""
        sizes = [
            f"algorithm.prompts_per_step={PROMPTS}",
            f"algorithm.samples_per_prompt={SAMPLES}",
            f"algorithm.policy_loss.kl_coef={KL_COEF}",
            "algorithm.minibatches=1",
            f"rollout.max_response_tokens={TOKENS}",
            "rollout.max_sequence_tokens=192",
            f"actor.model.path={folder}",
        ]
        config = preflight.load("train", [*self.settings, *sizes, *more])
        import_plugins(config.plugins)
        return config


CASES = {
    "smollm2": Case(("smollm2",), ("experiment=smollm2",), trl_rows=8),
    "smollm2_float32": Case(("smollm2",), ("experiment=smollm2", "actor.model.dtype=float32"), trl_rows=8),
    "tiny": Case(
        ("addition", "--layers", "2", "--hidden", "64", "--ffn", "192", "--heads", "2", "--kv-heads", "1"),
        # Of so small a model most of a token's time is vLLM's code in Python, which compilation takes away.
        ("experiment=addition", "algorithm=grpo", "actor.parallel.tensor=1", "rollout.enforce_eager=false"),
    ),
}


def prompts_of(config: Config) -> Prompts:
    """Return the order of prompts in which both take their steps."""
    return Prompts(load_task(config), "train", PROMPTS, config.run.seed)


def digest(prompts: Iterable[Iterable[int]]) -> str:
    """Return a digest of a step's prompts, as token ids, whatever their order and however often each is there."""
    different = sorted({tuple(int(token) for token in ids) for ids in prompts})
    return hashlib.sha256(json.dumps(different).encode()).hexdigest()[:16]


class Turns:
    """This process's end of a pipe on which the benchmark asks for steps, one at a time.

    What libraries print goes to stderr from then on.
    """

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def answer(self, **found: Any) -> None:
        """Report a step, or that all is ready."""
        print(json.dumps(found, default=_plain), file=self._answers, flush=True)

    def wait(self) -> bool:
        """Sleep until the next step is asked for; False: no more are."""
        return sys.stdin.readline().strip() == "step"


def serve(take_step: Callable[[int], dict[str, Any]], turns: Turns) -> None:
    """Take a step whenever one is asked for."""
    number = 0
    while turns.wait():
        turns.answer(**take_step(number))
        number += 1


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return value.item() if isinstance(value, np.generic) else repr(value)
