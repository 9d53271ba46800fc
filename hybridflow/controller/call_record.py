"""Record of a call under way: whom it went to, what they report, and what to say of those that do not."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import ray

from hybridflow.controller.failure_policy import RankSource
from hybridflow.controller.process_deaths import ending
from hybridflow.observe.metrics import TIMES, Metrics
from hybridflow.runtime.failure import Failure, FailureKind, describe
from hybridflow.runtime.messages import Report

MAX_NAMED = 8  # ranks
NO_PLACE = "its process"  # of a failure of which Ray does not say where it was
LOST = (ray.exceptions.ActorUnavailableError, ray.exceptions.ObjectLostError, ray.exceptions.NodeDiedError)


@dataclass(eq=False)
class CallRecord:
    """Record of one call on a group.

    Attributes:
        ranks: that were called.
        pending: the report to come from each of them; none when all are there.
        size: the ranks of the group.
        step: of the algorithm, in which it was made.
        pool: whose ranks they are; None: it is not known, as of a stand-in for a pool.
        within_s: seconds that it may take.
        setting: that gives it longer.
        number: of the call, in the order in which calls were made.
        background: it belongs to no step, and no barrier waits for it.
        reports: by rank; None until it is there, or if the rank is not called.
    """

    role: str
    method: str
    ranks: Sequence[int]
    pending: Sequence[Any]
    size: int
    collect: Callable[[list[Any]], Any]
    step: int | None = None
    pool: RankSource | None = None
    within_s: float = inf
    setting: str = ""
    number: int = -1
    background: bool = False
    missing: int = 0
    reports: list[Report | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.missing = len(self.pending)
        self.reports = [None] * self.size

    def joined(self, part: Callable[[Report], Any]) -> Any:
        """Return what the protocol collects of a part of every report."""
        return self.collect([None if report is None else part(report) for report in self.reports])

    def unreported(self) -> list[int]:
        """Return the ranks from which there is no report yet."""
        return [rank for rank in self.ranks if self.reports[rank] is None]


def measured(record: CallRecord) -> Metrics:
    """Join what a call measured: means and sums as its protocol collects them, the maxima and minima of all its ranks.

    A protocol collects from ranks that have the results, each row once. A maximum may come from any rank: a rank that
    has no result, because it has half of a layer, may need the most memory.
    """
    reports = [report for report in record.reports if report is not None]
    joined = Metrics()
    measured = [report.metrics for report in reports if report.metrics]
    joined.total(f"{TIMES}{record.method}", max([report.seconds for report in reports]))
    if not measured:
        return joined
    collected = record.joined(lambda report: report.metrics)
    for metrics in collected if isinstance(collected, list) else [collected]:
        joined.add(metrics or Metrics())
    joined.maxima.clear()
    for metrics in measured:
        for name, value in metrics.maxima.items():
            joined.max(name, value)
        for name, value in metrics.minima.items():
            joined.min(name, value)
    for name in [name for name in joined.maxima if name.startswith(TIMES)]:
        joined.total(name, joined.maxima.pop(name))
    return joined


def in_step(failure: Failure, record: CallRecord) -> Failure:
    """Return a failure with the step in which its call was made."""
    return dataclasses.replace(failure, step=record.step)


def named(ranks: list[int]) -> str:
    """Name the first few ranks."""
    return ", ".join(map(str, ranks[:MAX_NAMED])) + (", …" if len(ranks) > MAX_NAMED else "")


def late(record: CallRecord, within_s: float, more: str = "") -> Failure:
    """Describe the first rank from which there is no report; `more`: what is known of it."""
    missing = record.unreported()
    line = f"it was not done after {within_s:.0f} s; {record.setting} gives it longer"
    if len(missing) > 1:
        line += f" (nor on {len(missing) - 1} more of its {record.size} ranks)"
    line += more
    return Failure(
        record.role, missing[0], "no report", record.method, line, "", record.step, at=0.0, kind=FailureKind.INFRA
    )


def lost(record: CallRecord, rank: int, error: Exception) -> Failure:
    """Describe a call whose process has died, or did not report for another reason that Ray gives.

    It counts as the first of all failures: it becomes known late, and what other ranks raise then follows from it.
    """
    rays_message = str(error).strip()
    if isinstance(error, ray.exceptions.ActorDiedError):
        place = {key: re.search(rf"^\s*{key}: (\S+)$", rays_message, re.MULTILINE) for key in ("ip", "pid")}
        pid = int(place["pid"][1]) if place["pid"] else None
        node = place["ip"][1] if place["ip"] else "node unknown"
        line = f"its process{'' if pid is None else f' {pid}'} died: {ending(pid, rays_message)}"
        follows = isinstance(error, ray.exceptions.RayTaskError)  # it is of a call whose rows this one was given
        return Failure(
            record.role, rank, node, record.method, line, rays_message, follows=follows, at=0.0, kind=FailureKind.INFRA
        )
    cause = getattr(error, "cause", None)
    line = describe(cause if isinstance(cause, BaseException) else error)[0]
    kind = FailureKind.INFRA if isinstance(error, LOST) else FailureKind.BUG
    follows = kind is FailureKind.INFRA and isinstance(error, ray.exceptions.RayTaskError)
    return Failure(record.role, rank, NO_PLACE, record.method, line, rays_message, None, follows, at=0.0, kind=kind)
