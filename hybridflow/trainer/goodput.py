"""Goodput: the share of a run's wall time that went into steps which were kept, and what the rest went into.

Every second of a process of the run counts once, for one purpose. A step that is made again, after a failure or in
another process, moves from the steps that were kept to the work that was lost.

The word, and the split of what is not goodput by its cause, are those of Google's ML Goodput Measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Any

from hybridflow.errors import HybridFlowError
from hybridflow.observe.metrics import TIMES
from hybridflow.observe.run_folder import RunFolder

GOODPUT = "perf/goodput"


class Spent(StrEnum):
    """What seconds of a run go into."""

    start = "start"  # from the settings to the first step: processes, roles, a checkpoint
    steps = "steps"  # that were kept
    validations = "validations"
    saves = "saves"  # of checkpoints, and of the model at the end
    detection = "detection"  # from when a lost process was last seen to be well until the failure was told
    restart = "restart"  # from then until the run went on
    lost_work = "lost_work"  # steps, also parts of one, that were made again
    other = "other"  # between these


class WallClock:
    """Sorts the wall seconds of a run by what they go into.

    Attributes:
        seconds: by `Spent`, up to the last time that something else began.
    """

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self.seconds = {what.value: 0.0 for what in Spent}
        self._now = now
        self._current = Spent.start
        self._since = now()

    def enter(self, what: Spent) -> None:
        """Count the seconds from now on for this."""
        now = self._now()
        self.seconds[self._current] += now - self._since
        self._current = what
        self._since = now

    def elapsed(self) -> float:
        """Return the seconds since that began which is under way."""
        return self._now() - self._since

    def end(self) -> None:
        """Count what is under way, at the end of the process. A step that has not been finished is lost."""
        if self._current is Spent.steps:
            self._current = Spent.lost_work
        self.enter(Spent.other)

    def add(self, before: Mapping[str, float]) -> None:
        """Add the seconds of earlier processes."""
        for what, seconds in before.items():
            self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def fail(self, unseen_s: float) -> None:
        """Take in that a failure has been told: a restart begins.

        Args:
            unseen_s: since when nobody knows whether all was well. It is no more than what was begun has taken.
        """
        failed = self._current
        detection = min(unseen_s, self.elapsed())
        self.enter(Spent.restart)
        self.seconds[failed] -= detection
        self.seconds[Spent.detection] += detection

    def lose_steps(self, kept: Mapping[str, float]) -> None:
        """Take in that the run went back to where these seconds had been spent: what steps took since then is lost."""
        lost = self.seconds[Spent.steps] - kept.get(Spent.steps, 0.0)
        self.seconds[Spent.steps] -= lost
        self.seconds[Spent.lost_work] += lost


def goodput(seconds: Mapping[str, float]) -> float:
    """Return the share of all seconds that went into steps which were kept."""
    return seconds.get(Spent.steps, 0.0) / max(sum(seconds.values()), 1e-9)


def measured(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a run so far; what it has spent nothing on is in none."""
    by_purpose = {f"{TIMES}run/{what}": spent for what, spent in seconds.items() if spent}
    return {GOODPUT: goodput(seconds), **by_purpose}


def told(seconds: Mapping[str, float]) -> str:
    """Say what a run came to, for its table."""
    rest = sorted(((spent, what) for what, spent in seconds.items() if what != Spent.steps), reverse=True)
    parts = ", ".join(f"{what.replace('_', ' ')} {spent:.0f} s" for spent, what in rest if spent >= 0.5)
    return f"{goodput(seconds):.0%} of {sum(seconds.values()):.0f} s were kept steps" + (f"; {parts}" if parts else "")


def since_checkpoint(folder: RunFolder, checkpoint: Path) -> dict[str, float]:
    """Return what earlier processes of a run spent after one of its checkpoints was begun: its save, and lost work."""
    try:
        events = folder.events()
        step = int(checkpoint.name.removeprefix("step-"))
        spent = spent_after(events, step, folder.last_sign())
        return spent if all(0 <= seconds < math.inf for seconds in spent.values()) else {}
    except (HybridFlowError, OSError, ValueError, KeyError, TypeError):
        return {}  # somebody has edited what only tells how time went


def spent_after(events: Iterable[Mapping[str, Any]], step: int, last_sign: float) -> dict[str, float]:
    """Add up what was done after the last checkpoint of a step, from the events of its run.

    Args:
        last_sign: of the run's last process, in seconds since the epoch; it may have ended without an event.
    """
    lost, save_s, since = 0.0, 0.0, None
    last = 0.0
    for event in events:
        at = datetime.fromisoformat(event["time"]).timestamp()
        if event["event"] == "checkpoint" and event["step"] == step:
            lost, save_s, since = 0.0, float(event["seconds"]), at
        elif event["event"] == "start" and since is not None:
            lost += last - since + float(event.get("seconds", 0.0))
            since = at
        last = at
    if since is None:
        return {}
    return {Spent.saves: save_s, Spent.lost_work: max(0.0, lost + max(last, last_sign) - since)}
