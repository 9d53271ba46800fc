"""Runs with a fault in them, the undisturbed runs that they are compared with, and what a row of the table is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fault_plugin import FAULT, MARK
from hybridflow.cli import model

WITHIN_S = 10.0
LIMIT_S = 600.0  # of a run
COMMAND = (sys.executable, "-m", "hybridflow")
SETTINGS = (
    "experiment=addition", "plugins=[benchmarks.fault_plugin]", "trainer.steps=4",
    "trainer.save_every=1", "trainer.log_rollouts_every=1", "trainer.validation_prompts=64",
    "trainer.stop_at_accuracy=null", "algorithm.prompts_per_step=32", "algorithm.critic_warmup_steps=0",
    "rollout.max_concurrent_rows=64",
)  # fmt: skip
WARM_UP = (
    "experiment=addition_warmup", "trainer.steps=110", "trainer.validate_every=0", "placement.pools.main=1",
    "actor.parallel.tensor=1",
)  # fmt: skip
LAYOUTS = {
    "colocated": ("placement.pools={main: 2}",),
    "disaggregated": ("placement=rollout_pool", "placement.pools={train: 2, rollout: 1}"),
    "one rank": ("placement.pools={main: 1}", "actor.parallel.tensor=1"),
}
Result = dict[str, object]


@dataclass(frozen=True)
class Ended:
    """A run that has ended: its lines with the time of each, when it ended, and its folder."""

    status: int
    lines: list[tuple[float, str]]
    folder: Path
    mark: Path
    at: float

    def happened(self, number: int = 0) -> float | None:
        """Return when the fault of that number happened; None: it did not."""
        return _marked(self.mark, number)

    def first(self, words: str) -> float | None:
        """Return when a line with these words first came."""
        return next((at for at, line in self.lines if words in line), None)

    def line(self, words: str) -> str | None:
        """Return the first line with these words."""
        return next((line for _, line in self.lines if words in line), None)

    @property
    def last(self) -> str:
        """The last line."""
        return self.lines[-1][1] if self.lines else ""


@dataclass(frozen=True)
class Running:
    """A run that goes on: leader of a process group of its own, so that a signal may go to all of it."""

    process: subprocess.Popen[str]
    folder: Path
    mark: Path
    lines: list[tuple[float, str]]
    reader: threading.Thread

    def wait_for_fault(self, number: int = 0, limit_s: float = 120.0) -> float:
        """Return when the fault of that number happened, as soon as it has."""
        self.wait_for(lambda: _marked(self.mark, number) is not None, f"fault {number}", limit_s)
        at = _marked(self.mark, number)
        assert at is not None
        return at

    def wait_for_line(self, words: str, limit_s: float = 120.0) -> None:
        """Wait until the run prints a line with these words."""
        self.wait_for(lambda: any(words in line for _, line in list(self.lines)), repr(words), limit_s)

    def end(self, limit_s: float = LIMIT_S) -> Ended:
        """Wait until the run has ended; one that takes longer than this is killed."""
        try:
            status = self.process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        at = time.time()
        self.reader.join(timeout=30)
        return Ended(status, list(self.lines), self.folder, self.mark, at)

    def wait_for(self, done: Callable[[], bool], what: str, limit_s: float = 120.0) -> None:
        """Wait until this is so; `what` names it."""
        until = time.monotonic() + limit_s
        while not done():
            assert self.process.poll() is None, f"the run ended before {what}: {self.lines[-1:]}"
            assert time.monotonic() < until, f"no {what} in {limit_s:g} s: {self.lines[-1:]}"
            time.sleep(0.01)


@dataclass
class Runs:
    """The runs of a table, all in one folder.

    Attributes:
        forks: the environment in which ranks are forked from a process that has imported the engines.
        shown: words of lines that are printed as they come.
    """

    place: Path
    forks: dict[str, str]
    shown: Sequence[str] = ()
    _undisturbed: dict[tuple[str, ...], Ended] = field(default_factory=dict)

    def warm_up(self) -> None:
        """Train the model that runs begin with, so that there is something to learn from."""
        assert model.run(["addition", "--out", str(self.place / "models/addition")]) == 0
        command = [sys.executable, "-m", "hybridflow", "sft", *WARM_UP]
        environment = {**os.environ, **self.forks}
        subprocess.run(command, cwd=self.place, env=environment, stdout=subprocess.DEVNULL, check=True)

    @contextmanager
    def started(
        self,
        name: str,
        layout: str,
        faults: Sequence[str] = (),
        more: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        program: Sequence[str] = COMMAND,
        forked: bool = True,
    ) -> Iterator[Running]:
        """Start a run in which these faults happen; after the block it does not go on.

        Args:
            more: settings. A run of a name that there was goes on from its checkpoint.
            folder: that it is started in; None: that of all runs.
            program: what starts it.
            forked: ranks are forks of a process that has imported the engines; else they start as users' do.
        """
        folder = folder or self.place
        mark = self.place / f"{name}.mark"
        wanted = {MARK: str(mark), **({FAULT: ",".join(faults)} if faults else {})}
        forks = self.forks if forked else {}
        process = subprocess.Popen(
            [*program, "train", f"run.name={name}", *SETTINGS, *LAYOUTS[layout], *more],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **forks, **wanted, **(environment or {})},
        )  # fmt: skip
        lines: list[tuple[float, str]] = []
        output = process.stdout
        assert output is not None
        reader = threading.Thread(target=self._read, args=(name, output, lines), daemon=True)
        reader.start()
        try:
            yield Running(process, folder / "runs" / name, mark, lines, reader)
        finally:
            process.kill()
            process.wait()

    def _read(self, name: str, output: Iterable[str], lines: list[tuple[float, str]]) -> None:
        """Put down a run's lines with their times."""
        began = time.time()
        for line in output:
            lines.append((time.time(), line.rstrip()))
            if any(words in line for words in self.shown):
                print(f"{name} after {lines[-1][0] - began:.1f} s: {line.rstrip()}", flush=True)

    def run(
        self,
        name: str,
        layout: str,
        faults: Sequence[str] = (),
        more: Sequence[str] = (),
        limit_s: float = LIMIT_S,
        **how: Any,
    ) -> Ended:
        """Make one run from its start to its end; `how`: as `started` has it."""
        with self.started(name, layout, faults, more, **how) as running:
            return running.end(limit_s)

    def undisturbed(self, layout: str, more: Sequence[str] = ()) -> Ended:
        """Return the run of that layout and these settings in which nothing fails; it is made once."""
        key = (layout, *more)
        if key not in self._undisturbed:
            ended = self.run(f"undisturbed-{len(self._undisturbed)}", layout, more=more)
            assert ended.status == 0 and ended.first("failure ") is None, f"{key}: {ended.lines[-1:]}"
            self._undisturbed[key] = ended
        return self._undisturbed[key]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        make: makes its runs and judges them. What it returns has `pass`, and of the others what there is: `detect_s`,
            `status`, `rows_lost`, `rows_twice`, `weights_equal`, `told` (the line that a user sees).
    """

    name: str
    make: Callable[[Runs], Result]

    @property
    def run_name(self) -> str:
        """A name for its run."""
        return run_name(self.name)


def run_name(row: str) -> str:
    """Return the name of a row's run."""
    return re.sub(r"[^a-z0-9]+", "-", row.lower()).strip("-")


def rows(ended: Ended) -> Counter[str]:
    """Count the rows that a run has learned from, each with the rank that wrote it."""
    files = sorted((ended.folder / "rollouts").glob("*.jsonl"))
    return Counter(f"{file.name}: {line}" for file in files for line in file.read_text().splitlines())


def weights(ended: Ended) -> bytes:
    """Return the bytes of the trained model."""
    file = ended.folder / "model/model.safetensors"
    return file.read_bytes() if file.exists() else b""


def compared(ended: Ended, undisturbed: Ended) -> Result:
    """Compare what a run has made with what it would have made."""
    lost, twice = rows(undisturbed) - rows(ended), rows(ended) - rows(undisturbed)
    return {
        "rows_lost": lost.total(),
        "rows_twice": twice.total(),
        "weights_equal": weights(ended) == weights(undisturbed) != b"",
    }


def is_whole(compared: Result) -> bool:
    """Tell whether a run has made what the undisturbed one made."""
    return compared["weights_equal"] is True and not compared["rows_lost"] and not compared["rows_twice"]


def seconds_between(begin: float | None, end: float | None) -> float | None:
    """Return the seconds from one moment to another; None where either never came."""
    return None if begin is None or end is None else round(end - begin, 2)


def _marked(mark: Path, number: int) -> float | None:
    file = Path(f"{mark}.{number}")
    text = file.read_text() if file.exists() else ""
    return float(text) if text else None
