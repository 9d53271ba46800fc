"""Whole runs by the command line: real Ray, Megatron and vLLM. What several tests read is run once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

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


def start(arguments: list[str], cwd: Path) -> subprocess.Popen[str]:
    """`hybridflow ARGUMENTS` in a session of its own, so that a signal reaches it and what it started."""
    return subprocess.Popen(
        [sys.executable, "-m", "hybridflow", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


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
def apart(launch: Launch, warm: Ran) -> Ran:
    """Three steps of GRPO that generates on a pool of its own, saved after the last."""
    assert warm.status == 0, warm.output
    return launch("train", "apart", *APART)
