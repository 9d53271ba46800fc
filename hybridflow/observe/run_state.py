"""State of a run as a person looks at it, fed from its records: in the run's own process, or from its folder alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridflow.observe.json_lines import FollowedLines, Record
from hybridflow.observe.metrics import TIMES
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.run_records import (
    VALIDATION,
    MetricHistory,
    finite,
    newest_rows,
    read_settings,
    seconds_spent,
    status_of,
)
from hybridflow.observe.shown_metrics import NAMES

KEPT_STEPS = 512  # whose numbers are kept; of a longer run the older ones are thinned out
KEPT_EVENTS = 64
RECENT_STEPS = 32  # by which the time that is left is judged
WORKED = "worked_s"  # seconds of the run so far without its start, beside the numbers of a step
UNDER_WAY = ("starting", "running")


@dataclass
class RunState:
    """State of a run.

    Attributes:
        steps: of the run in all; None: not known.
        status: as `status_of` has it.
        error: what ended it, or what is wrong with it; "": nothing.
        metrics: the numbers that are shown, of its steps and validations.
        newest: all metrics of the newest step; {}: there is none yet.
        newest_at: when they came, in seconds since the epoch; 0: not known.
        events: the last ones, as `events.jsonl` has them, but alarms.
        alarms: as `events.jsonl` has them.
        sample: a row of the newest step whose rows are written out.
        changes: how often it was told something.
    """

    name: str
    steps: int | None = None
    status: str = "running"
    error: str = ""
    metrics: MetricHistory = field(default_factory=MetricHistory)
    newest: Record = field(default_factory=dict)
    newest_at: float = 0.0
    events: deque[Record] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    alarms: deque[Record] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    sample: Record | None = None
    changes: int = 0

    @property
    def done(self) -> int:
        """Steps that have been taken."""
        steps = [line["step"] + 1 for line in self.metrics.steps[-1:]]
        return max([*steps, *(line["step"] for line in self.metrics.validations[-1:])], default=0)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes."""
        return self.status not in UNDER_WAY

    def take_metrics(self, line: Mapping[str, Any], at: float) -> None:
        """Take in a line of `metrics.jsonl`, which came at a time of the epoch."""
        self.changes += 1
        kept = {name: value for name, value in line.items() if name in NAMES or name.startswith(VALIDATION)}
        worked = _worked(line)
        if not self.metrics.take(kept if worked is None else {**kept, WORKED: worked}):
            return
        if self.metrics.steps and kept.get("step") == self.metrics.steps[-1]["step"] and not _validates(line):
            self.newest = dict(line)
            self.newest_at = at
        if len(self.metrics.steps) > KEPT_STEPS:
            newest = len(self.metrics.steps) - KEPT_STEPS // 2
            self.metrics.steps[:newest] = _spread(self.metrics.steps[:newest], KEPT_STEPS // 4)

    def take_event(self, event: Record) -> None:
        """Take in a line of `events.jsonl`."""
        self.changes += 1
        (self.alarms if event.get("event") == "alarm" else self.events).append(event)

    def series(self, name: str) -> list[tuple[int, float | None]]:
        """Return the values of a metric with their steps; None: it was not finite, or not measured."""
        lines = self.metrics.validations if name.startswith(VALIDATION) else self.metrics.steps
        return [(line["step"], finite(line.get(name))) for line in lines]

    def last(self, name: str) -> float | None:
        """Return a metric of the newest step, or of the last validation, that has it as a number."""
        lines = self.metrics.validations if name.startswith(VALIDATION) else self.metrics.steps
        return finite(lines[-1].get(name)) if lines else None

    def seconds(self) -> float | None:
        """Return the seconds of the run so far, its start among them; None: nobody counts them."""
        return _run_seconds(self.newest)

    def seconds_left(self) -> float | None:
        """Expect how long the steps that are left take, with their validations and saves, by the last steps."""
        recent = self.metrics.steps[-RECENT_STEPS - 1 :]
        if self.steps is None or not recent:
            return None
        first, last = recent[0], recent[-1]
        begin, end = finite(first.get(WORKED)), finite(last.get(WORKED))
        taken = last["step"] - first["step"]
        if begin is None or end is None or not taken:
            begin, end, taken = 0.0, finite(last.get(f"{TIMES}step")), 1
        if end is None:
            return None
        return max(0.0, (end - begin) / taken) * max(0, self.steps - self.done)


class FollowedRun:
    """Run whose state is read from its folder, as it comes.

    Args:
        metrics: whether metrics are read there too; else they are given to the state.
    """

    def __init__(self, path: Path, state: RunState, *, metrics: bool = True) -> None:
        self.path = path
        self.state = state
        self._reads_metrics = metrics
        self._metrics = FollowedLines(path / "metrics.jsonl")
        self._events = FollowedLines(path / "events.jsonl")
        self._settings_of = 0.0
        self._rows: tuple[Path, int] | None = None  # file of rows, and its size, when it was last looked at

    def look(self) -> list[Record]:
        """Take in what is new; return the events of it."""
        if self._reads_metrics:
            self._look_at_metrics()
        events = self._events.read()
        if self._events.anew:
            self.state.changes += 1
            self.state.events.clear()
            self.state.alarms.clear()
        for event in events:
            self.state.take_event(event)
        self._look_at_rows()
        return events

    def read_before(self) -> None:
        """Take in the metrics of before, where the run goes on and gives those that come."""
        self._look_at_metrics()

    def look_at_record(self) -> None:
        """Take in by what the run was made and how it is, which its folder tells once it has begun."""
        record = RunFolder(self.path).record()
        self.state.name = str(record.get("name") or self.path.name)
        self.state.status = status_of(self.path, record)
        self.state.error = str(record.get("error") or "")
        written = _written_at(self.path / "config.yaml")
        if written != self._settings_of:  # a run that goes on may have been given more steps
            self._settings_of = written
            trainer = read_settings(self.path).get("trainer")
            steps = trainer.get("steps") if isinstance(trainer, dict) else None
            self.state.steps = steps if isinstance(steps, int) else None

    def _look_at_metrics(self) -> None:
        lines = self._metrics.read()
        if self._metrics.anew:
            self.state.changes += 1
            self.state.metrics = MetricHistory()
            self.state.newest = {}
        for line in lines:
            self.state.take_metrics(line, _written_at(self.path / "metrics.jsonl"))

    def _look_at_rows(self) -> None:
        try:
            files = sorted((self.path / "rollouts").glob("*.jsonl"), key=lambda file: (len(file.name), file.name))
            found = (files[0], files[0].stat().st_size) if files else None
        except OSError:
            return
        if found == self._rows:
            return
        self._rows = found
        rows = newest_rows(found[0]) if found else []
        self.state.sample = chosen_row(rows) if rows else None
        self.state.changes += 1


def chosen_row(rows: Sequence[Record]) -> Record:
    """Choose the row of a step that is shown: another one at each step, and the same for whoever looks."""
    return rows[rows[0]["step"] % len(rows)]


def _written_at(file: Path) -> float:
    """Return when a file was last written to, in seconds since the epoch; 0: it is not there."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _validates(line: Mapping[str, Any]) -> bool:
    return any(name.startswith(VALIDATION) for name in line)


def _spread(lines: Sequence[Record], parts: int) -> list[Record]:
    """Return the first line of each of so many equal parts of these steps, so that none of a run's course is blank."""
    begin, end = lines[0]["step"], lines[-1]["step"] + 1
    by_part: dict[int, Record] = {}
    for line in lines:
        by_part.setdefault((line["step"] - begin) * parts // (end - begin), line)
    return [*by_part.values()]


def _run_seconds(line: Mapping[str, Any]) -> float | None:
    spent = seconds_spent(line)
    return sum(spent.values()) if spent else None


def _worked(line: Mapping[str, Any]) -> float | None:
    seconds = _run_seconds(line)
    return None if seconds is None else seconds - seconds_spent(line).get("start", 0.0)
