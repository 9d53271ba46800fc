"""Short runs of 1 + 1 ranks, each pinned to a core of its own, that a simulation's prediction is compared with."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.schedule_prediction import prediction
from hybridflow.cli import model

SCHEDULES = ("one_step_off",)
ROOT = Path(__file__).parents[1]
# Generation takes about as long as learning; no step is saved, written out or validated in between.
SETTINGS = (
    "experiment=addition", "algorithm=grpo", "algorithm.prompts_per_step=64", "plugins=[benchmarks.pinned_ranks]",
    "actor.model.path=models/addition", "actor.parallel.tensor=1", "placement=rollout_pool",
    "placement.pools={train: 1, rollout: 1}", "trainer.steps=12", "trainer.validate_every=0",
    "trainer.validation_prompts=8", "trainer.log_rollouts_every=0", "trainer.stop_at_accuracy=null",
    "algorithm.policy_loss.entropy_coef=0.01",
)  # fmt: skip


def predictions(pairs: int, schedules: tuple[str, ...] = SCHEDULES) -> list[dict[str, Any]]:
    """Run sync and the other schedules in turn, so many times; compare each run with what the sync before it says."""
    with runs_folder() as folder:
        for turn in range(pairs):
            for schedule in ("sync", *schedules):
                began = time.monotonic()
                run(folder, schedule, turn)
                print(f"pair {turn + 1} of {pairs}: {schedule} in {time.monotonic() - began:.0f} s", flush=True)
        return [
            prediction(schedule, [(run_folder(folder, "sync", turn), run_folder(folder, schedule, turn))
                                  for turn in range(pairs)])
            for schedule in schedules
        ]  # fmt: skip


@contextmanager
def runs_folder() -> Iterator[Path]:
    """Make a folder for runs, with a fresh model in it; it goes after the block."""
    with tempfile.TemporaryDirectory(prefix="hybridflow-schedules-") as name:
        folder = Path(name)
        model.run(["addition", "--out", str(folder / "models/addition")])
        yield folder


def run_folder(folder: Path, schedule: str, turn: int) -> Path:
    """Return where a run is."""
    return folder / "runs" / f"{schedule}_{turn}"


def run(folder: Path, schedule: str, turn: int) -> None:
    """Make a run. Raises RuntimeError, with the end of what it printed, if it fails."""
    own = (f"trainer.schedule={schedule}", f"run.name={run_folder(folder, schedule, turn).name}", f"run.seed={turn}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "hybridflow", "train", *SETTINGS, *own]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{schedule} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")
