"""Short runs of `hybridflow`, each a process of its own, in a folder that goes after them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hybridflow.cli import model

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class ShortRuns:
    """Makes runs in a folder.

    Attributes:
        forks: the environment in which ranks are forked from a process that has imported the engines; none: they
            start as users' do.
        root: where in the folder the runs are.
    """

    place: Path
    forks: Mapping[str, str] = field(default_factory=dict)
    root: str = "runs"

    def run(self, subcommand: str, name: str, *settings: str) -> Path:
        """Make a run and return its folder. Raises RuntimeError, with the end of what it printed, if it fails."""
        began = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "hybridflow",
            subcommand,
            f"run.root={self.root}",
            f"run.name={name}",
            *settings,
        ]
        environment = {**os.environ, **self.forks, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=self.place, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        return self.place / self.root / name


@contextmanager
def short_runs(forks: Mapping[str, str] | None = None) -> Iterator[ShortRuns]:
    """Make a folder for runs with a fresh model, `models/addition`, in it."""
    with tempfile.TemporaryDirectory(prefix="hybridflow-schedules-") as name:
        assert model.run(["addition", "--out", str(Path(name) / "models/addition")]) == 0
        yield ShortRuns(Path(name), forks or {})


def metrics_of(folder: Path, wanted: str) -> list[dict[str, float]]:
    """Return the lines of a run's metrics that have this one: of steps, or of validations."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if wanted in line]
