"""Whole runs by the command line: real Ray, Megatron and vLLM. What several tests read is run once."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.trainer.processes import gone_within, left_of, start, start_marked, wait_until_saved

SMALL = ["rollout.max_concurrent_rows=64", "trainer.validation_prompts=64", "rollout.verify_refit=true"]
SIZES = ("algorithm.critic_warmup_steps=1", "trainer.steps=3", "trainer.log_rollouts_every=1", "trainer.save_every=3")
# On the same two ranks: the actor as tensor 2 × data 1, the critic as tensor 1 × data 2, the reference as pipeline 2.
LAYOUTS = (
    "actor.parallel.sequence=true",
    "actor.recompute=full",
    "critic.parallel.tensor=1",
    "critic.optimizer.distributed=true",
    "reference.parallel.tensor=1",
    "reference.parallel.pipeline=2",
)
PPO = ("experiment=addition", "algorithm.prompts_per_step=129", *LAYOUTS, *SIZES)
# Two training ranks and a rollout rank. The entropy lets every step learn, whatever the rewards are.
APART = (
    "experiment=addition",
    "placement=rollout_pool",
    "algorithm=grpo",
    "algorithm.prompts_per_step=8",
    "algorithm.policy_loss.entropy_coef=0.01",
    *SIZES[1:],
)


@dataclass(frozen=True)
class Ran:
    """A finished run: its exit status, what it printed, and its folder."""

    status: int
    output: str
    folder: Path

    @property
    def steps(self) -> list[dict[str, float]]:
        """The metrics of each step."""
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if "timing_s/step" in line]

    @property
    def accuracy(self) -> list[float]:
        """Each validation's accuracy."""
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [line["validation/accuracy"] for line in lines if "validation/accuracy" in line]


Launch = Callable[..., Ran]


@dataclass(frozen=True)
class Ended:
    """A run that was ended: how, the seconds until no process of it was left, and those that were."""

    status: int
    output: str
    seconds: float
    left: list[str]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the addition model in it."""
    from hybridflow.cli import model

    folder = tmp_path_factory.mktemp("runs")
    assert model.run(["addition", "--out", str(folder / "models/addition")]) == 0
    return folder


@pytest.fixture(scope="session")
def launch(place: Path) -> Launch:
    """`launch(subcommand, name, *overrides)`: run it to its end."""

    def run(subcommand: str, name: str, *overrides: str) -> Ran:
        process = start([subcommand, *SMALL, f"run.name={name}", *overrides], place)
        output, _ = process.communicate(timeout=280)
        return Ran(process.returncode, output, place / "runs" / name)

    return run


@pytest.fixture(scope="session")
def warm(launch: Launch) -> Ran:
    """A short warm-up of the addition model; under the name that experiment=addition starts from."""
    overrides = ("experiment=addition_warmup", "trainer.steps=110", "trainer.validate_every=0")
    return launch("sft", "addition_warmup", *overrides)


@pytest.fixture(scope="session")
def ppo(launch: Launch, warm: Ran) -> Ran:
    """Three steps of PPO, saved after the last; in the first of them only the critic learns."""
    assert warm.status == 0, warm.output
    return launch("train", "ppo", *PPO)


@pytest.fixture(scope="session")
def interrupted(place: Path, warm: Ran) -> Ended:
    """The run of `ppo`, ended by Ctrl-C in its second step or soon after; every step is saved."""
    assert warm.status == 0, warm.output
    process, mark = start_marked(["train", *SMALL, *PPO, "run.name=interrupted", "trainer.save_every=1"], place)
    wait_until_saved(process, place / "runs/interrupted", 1)
    assert left_of(mark), "the mark must find the processes of a running job"
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    output, _ = process.communicate(timeout=60)
    left = gone_within(mark, 20.0)
    return Ended(process.returncode, output, time.monotonic() - begin, left)


@pytest.fixture(scope="session")
def apart(launch: Launch, warm: Ran) -> Ran:
    """Three steps of GRPO that generates on a pool of its own, saved after the last."""
    assert warm.status == 0, warm.output
    return launch("train", "apart", *APART)
