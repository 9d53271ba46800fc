"""Supervisor: knows every call under way, which step it belongs to, and what follows from a failure."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Any, NoReturn

import ray

from hybridflow.controller import interrupt
from hybridflow.controller.failure_policy import FailurePolicy, RaiseFirst, RankSource
from hybridflow.controller.process_deaths import ending
from hybridflow.former_names import Renamed
from hybridflow.observe.metrics import TIMES, Metrics
from hybridflow.runtime.failure import Failure, RoleError, describe
from hybridflow.runtime.messages import Report

log = logging.getLogger(__name__)

LOOK_UP_S = 0.5  # a wait is no longer than this without a look at whether the user wants to stop, or a call has failed
SAY_AFTER_S = 30.0  # of a start: whom it waits for
MAX_NAMED = 8  # ranks
GRACE_S = 0.5  # after a failure, for the reports of calls that had failed before it


@dataclass(eq=False)
class CallRecord:
    """Record of one call on a group.

    Attributes:
        ranks: that were called.
        pending: the report to come from each of them; none when all are there.
        size: the ranks of the group.
        step: of the algorithm, in which it was made.
        reports: by rank; None until it is there, or if the rank is not called.
    """

    role: str
    method: str
    ranks: Sequence[int]
    pending: Sequence[Any]
    size: int
    collect: Callable[[list[Any]], Any]
    step: int | None = None
    missing: int = 0
    reports: list[Report | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.missing = len(self.pending)
        self.reports = [None] * self.size

    def joined(self, part: Callable[[Report], Any]) -> Any:
        """Return what the protocol collects of a part of every report."""
        return self.collect([None if report is None else part(report) for report in self.reports])


class Supervisor(Renamed):
    """Watches calls. Whatever waits here raises as soon as any call fails, also another than the one it waits for.

    On a failure its policy decides what becomes of the ranks. Whoever waits after that is told the same failure.

    Args:
        on_failure: the policy; by default every rank is ended and the first failure raised.
    """

    def __init__(self, on_failure: FailurePolicy | None = None) -> None:
        self._on_failure = on_failure or RaiseFirst()
        self._step: int | None = None
        self._sampling: tuple[int | None, int] = None, 0
        self._under_way: dict[Any, tuple[CallRecord, int]] = {}
        self._finished: dict[int | None, list[CallRecord]] = {}
        self._pools: list[RankSource] = []
        self._failed: RoleError | None = None

    @property
    def step(self) -> int | None:
        """Step of the algorithm that calls are made in; None outside of one."""
        return self._step

    def begin_step(self, step: int) -> None:
        """Count the calls from now on as this step's: in its metrics, its errors and its random streams."""
        self._step = step
        self._finished.pop(step, None)  # of a step that was begun before, and not finished

    def finish_step(self) -> dict[str, float]:
        """Wait for the calls of the step, leave it, and return what they measured."""
        metrics = self.collect_metrics()
        self._step = None
        return metrics

    def register_pool(self, pool: RankSource) -> None:
        """Let the failure policy decide about the ranks of this pool too."""
        self._pools.append(pool)

    def count_sampling(self) -> int:
        """Count a call that samples; return how many were made before it in this step, on any role."""
        step, before = self._sampling
        before = before if step == self._step else 0
        self._sampling = self._step, before + 1
        return before

    def watch(self, record: CallRecord) -> None:
        """Take note of a call that has been made."""
        record.step = self._step
        for pending, rank in zip(record.pending, record.ranks, strict=True):
            self._under_way[pending] = record, rank

    def gather(self, role: str, method: str, pending: Sequence[Any], within_s: float = inf) -> list[Any]:
        """Watch one call on all ranks of a pool, whose metrics nobody wants; wait for its values and return them.

        Args:
            within_s: seconds after which the ranks that have not reported have failed.
        """
        record = CallRecord(role, method, range(len(pending)), pending, len(pending), lambda _: None)
        self.watch(record)
        return [report.value for report in self.wait(record, within_s) if report is not None]

    def wait(self, record: CallRecord, within_s: float = inf) -> list[Report | None]:
        """Wait for one call; return its reports by rank."""
        start = monotonic()
        said = within_s == inf
        while record.missing:
            self._raise_again()
            if monotonic() > start + within_s:
                self._fail(_late(record, within_s))
            if not said and monotonic() > start + SAY_AFTER_S:
                said = True
                late = _named(_unreported(record))
                log.warning("%s.%s: still waiting for rank %s", record.role, record.method, late)
            self._receive([pending for pending in record.pending if pending in self._under_way])
        return record.reports

    def wait_all(self) -> None:
        """Wait until every call of any step has reported: a barrier. What they measured stays with their steps."""
        self._raise_again()
        while self._under_way:
            self._receive(list(self._under_way))

    def collect_metrics(self) -> dict[str, float]:
        """Wait for the calls of this step, or for those outside of one; join what they measured since the last time."""
        self._raise_again()
        while pending := [call for call, (record, _) in self._under_way.items() if record.step == self._step]:
            self._receive(pending)
        joined = Metrics()
        for record in self._finished.pop(self._step, []):
            joined.add(_measured(record))
        return joined.result()

    def poll(self) -> None:
        """Take in the reports that have come, of any call. Raises RoleError as `wait` does."""
        interrupt.check()
        self._raise_again()
        ready, _ = ray.wait(list(self._under_way), num_returns=len(self._under_way), timeout=0.05)
        for pending in ready:
            self._take_in(pending, self._outcome(pending))

    def _receive(self, wanted: list[Any]) -> None:
        """Take these reports in, all at once if they come soon; else those that have come, of any call."""
        interrupt.check()
        try:
            reports = ray.get(wanted, timeout=LOOK_UP_S)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayError):  # one is late, or its process has died
            self.poll()
            return
        for pending, encoded in zip(wanted, reports, strict=True):
            self._take_in(pending, self._decoded(pending, encoded))

    def _outcome(self, pending: Any) -> Report:
        """Return the report of a call that has ended in any way."""
        try:
            encoded = ray.get(pending)
        except ray.exceptions.RayError as error:
            return Report(failure=_lost(*self._under_way[pending], error))
        return self._decoded(pending, encoded)

    def _decoded(self, pending: Any, encoded: bytes) -> Report:
        try:
            return Report.decode(encoded)
        except Exception as error:  # a value of a class that only the rank can import
            record, rank = self._under_way[pending]
            line, trace = describe(error)
            line = f"what it returned cannot be read here: {line}"
            return Report(failure=Failure(record.role, rank, "this process", record.method, line, trace))

    def _take_in(self, pending: Any, report: Report) -> None:
        record, rank = self._under_way.pop(pending)
        if report.failure is not None:
            self._fail(_in_step(report.failure, record))
        record.reports[rank] = report
        record.missing -= 1
        if not record.missing:
            record.pending = ()  # the store lets go of them
            self._finished.setdefault(record.step, []).append(record)

    def _fail(self, noticed: Failure) -> NoReturn:
        """Gather what else has failed by now, and leave what follows from it to the policy."""
        failures = [noticed]
        others = list(self._under_way)
        ready, _ = ray.wait(others, num_returns=len(others), timeout=GRACE_S) if others else ([], [])
        for pending in ready:
            failure = self._outcome(pending).failure
            if failure is not None:
                failures.append(_in_step(failure, self._under_way[pending][0]))
        self._under_way.clear()
        first, *after = sorted(failures, key=lambda failure: (failure.follows, failure.at))
        self._failed = RoleError(first, after)
        self._on_failure.handle(self._failed, self._pools)

    def _raise_again(self) -> None:
        if self._failed is not None:
            raise self._failed


def _measured(record: CallRecord) -> Metrics:
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


def _in_step(failure: Failure, record: CallRecord) -> Failure:
    return dataclasses.replace(failure, step=record.step)


def _unreported(record: CallRecord) -> list[int]:
    return [rank for rank in record.ranks if record.reports[rank] is None]


def _named(ranks: list[int]) -> str:
    """Name the first few ranks."""
    return ", ".join(map(str, ranks[:MAX_NAMED])) + (", …" if len(ranks) > MAX_NAMED else "")


def _late(record: CallRecord, within_s: float) -> Failure:
    """Describe the first rank from which there is no report."""
    late = _unreported(record)
    line = f"it was not done after {within_s:.0f} s; ray.start_timeout_s gives it longer"
    if len(late) > 1:
        line += f" (nor on {len(late) - 1} more of its {record.size} ranks)"
    return Failure(record.role, late[0], "no report", record.method, line, line, at=0.0)


def _lost(record: CallRecord, rank: int, error: Exception) -> Failure:
    """Describe a call whose process has died, or did not report for another reason that Ray gives.

    It counts as the first of all failures: it becomes known late, and what other ranks raise then follows from it.
    """
    rays_message = str(error).strip()
    if isinstance(error, ray.exceptions.ActorDiedError):
        place = {key: re.search(rf"^\s*{key}: (\S+)$", rays_message, re.MULTILINE) for key in ("ip", "pid")}
        pid = int(place["pid"][1]) if place["pid"] else None
        node = place["ip"][1] if place["ip"] else "node unknown"
        line = f"its process{'' if pid is None else f' {pid}'} died: {ending(pid, rays_message)}"
        return Failure(record.role, rank, node, record.method, line, rays_message, at=0.0)
    cause = getattr(error, "cause", None)
    line = describe(cause if isinstance(cause, BaseException) else error)[0]
    return Failure(record.role, rank, "its process", record.method, line, rays_message, at=0.0)
