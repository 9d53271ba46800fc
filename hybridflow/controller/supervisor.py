"""Supervisor: knows every call under way, which step it belongs to, and what follows from a failure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from math import inf
from typing import Any, NoReturn

import ray

from hybridflow import interrupt
from hybridflow.controller import ray_services
from hybridflow.controller.background_work import BackgroundWork
from hybridflow.controller.call_record import LOST, CallRecord, in_step, lost, measured
from hybridflow.controller.call_reports import LOOK_UP_S, decoded, received, settled
from hybridflow.controller.failure_policy import FailurePolicy, RaiseFirst, RankSource
from hybridflow.controller.health import Health
from hybridflow.controller.idle_time import IdleTime
from hybridflow.controller.rank_times import RankTimes
from hybridflow.errors import HybridFlowError
from hybridflow.former_names import Renamed
from hybridflow.observe.metrics import Metrics
from hybridflow.observe.timeline import CallSpan
from hybridflow.runtime.failure import Failure, RoleError
from hybridflow.runtime.messages import Report

log = logging.getLogger(__name__)

GRACE_S = 0.5  # after a failure, for the reports of calls that had failed before it


class Supervisor(Renamed):
    """Watches calls. Whatever waits here raises as soon as any call fails, also another than the one it waits for.

    On a failure its policy decides what becomes of the ranks. Whoever waits after that is told the same failure.

    While it waits it pings the processes of its pools, and minds the deadlines of calls.

    Args:
        on_failure: the policy; by default every rank is ended and the first failure raised.

    Attributes:
        health: of the ranks; it has the deadlines.
        on_span: is told of each call that a rank has carried out.
    """

    def __init__(self, on_failure: FailurePolicy | None = None, health: Health | None = None) -> None:
        self._on_failure = on_failure or RaiseFirst()
        self.health = health or Health()
        self._step: int | None = None
        self._sampled: dict[int | None, int] = {}
        self._under_way: dict[Any, tuple[CallRecord, int]] = {}
        self._finished: dict[int | None, list[CallRecord]] = {}
        self._pools: list[RankSource] = []
        self._failed: RoleError | None = None
        self._left: dict[Any, CallRecord] = {}  # under way when a call failed
        self._called: set[tuple[str, str]] = set()
        self._idle = IdleTime()
        self._rank_times = RankTimes()
        self._calls = 0  # that were made
        self.on_span: Callable[[CallSpan], None] | None = None
        self._background = BackgroundWork()

    @property
    def step(self) -> int | None:
        """Step of the algorithm that calls are made in; None outside of one."""
        return self._step

    def begin_step(self, step: int) -> None:
        """Count the calls from now on as this step's: in its metrics, its errors and its random streams."""
        self._finished.pop(step, None)  # of a step that was begun before, and not finished
        self._sampled.pop(step, None)
        self.enter_step(step)

    def enter_step(self, step: int) -> None:
        """Count the calls from now on as those of a step that was begun before and is not finished."""
        self._step = step

    def finish_step(self) -> dict[str, float]:
        """Wait for the calls of the step, leave it, and return what they measured, and those in the background."""
        self.wait_step(self._step)
        metrics = self._joined([*self._finished.pop(self._step, []), *self._background.take_finished()])
        self._sampled.pop(self._step, None)
        self._step = None
        return metrics

    def register_pool(self, pool: RankSource) -> None:
        """Let the failure policy decide about the ranks of this pool too."""
        self._pools.append(pool)

    def count_sampling(self) -> int:
        """Count a call that samples; return how many were made before it in this step, on any role."""
        before = self._sampled.get(self._step, 0)
        self._sampled[self._step] = before + 1
        if self._step is not None:
            self._sampled.pop(None, None)  # calls outside of any step are counted from the last step that sampled
        return before

    @property
    def called(self) -> frozenset[tuple[str, str]]:
        """Roles and methods that ranks have carried out since the last `forget_calls`, also in part.

        A call whose rows were never made is none of them: it has changed nothing.
        """
        return frozenset(self._called)

    def forget_calls(self) -> None:
        """Begin `called` anew."""
        self._called.clear()

    def quiesce(self, suspect: RankSource, within_s: float, *, sure: bool = True) -> list[RankSource]:
        """After a failure, wait until pools that live have done or given up what they were asked; return the others.

        The processes of these are ended at once: others may wait for rows of one that is stopped, or hangs.

        Args:
            suspect: the pool of the failure: it is lost, unless another is, of which this may be the consequence.
            within_s: after which a pool whose ranks are still at work counts as lost.
            sure: nobody need wait for the ranks of the suspect.
        """
        known = self.health.lost_pools() or ([suspect] if sure else [])
        gone = settled(self._left, known, self.health, within_s, self._note_carried_out) or [suspect]
        for pool in gone:
            self.health.end(pool)
        return [pool for pool in self._pools if pool in gone]

    def resume(self) -> None:
        """Take calls again after a failure; of those before it nothing is known any more."""
        self._failed = None
        self._left.clear()
        self._under_way.clear()
        self._finished.clear()
        self._sampled.clear()
        self._background = BackgroundWork()
        self._step = None

    def keep_going(self, work: Callable[[], None] | None) -> None:
        """Do this whenever a call has been reported while something here waits, so that others are kept busy.

        What it calls it calls in `background`, and it waits for nothing.
        """
        self._background.work = work

    def background(self) -> AbstractContextManager[list[CallRecord]]:
        """Count calls that are made in the block as part of no step: no barrier waits for them. Yields them."""
        return self._background.calling()

    def wait_background(self) -> None:
        """Wait until a call in the background has reported on some rank. Raises RoleError as `wait` does."""
        self._raise_again()
        self._receive([])

    def watch(self, record: CallRecord) -> None:
        """Take note of a call that has been made."""
        record.step = self._step
        record.number = self._calls
        self._calls += 1
        self._background.note_made(record)
        if not record.setting:
            record.within_s, record.setting = self.health.deadlines.of(record.role)
        for pending, rank in zip(record.pending, record.ranks, strict=True):
            self._under_way[pending] = record, rank

    def ask(
        self,
        role: str,
        method: str,
        pending: Sequence[Any],
        within_s: float = inf,
        pool: RankSource | None = None,
        setting: str = "ray.start_timeout_s",
    ) -> CallRecord:
        """Watch one call on the first ranks of a pool that is none on a role; `values` waits for it. It has no metrics.

        Args:
            within_s: seconds after which the ranks that have not reported have failed.
            setting: that says so; "": it has as long as a call on a role.
        """
        record = CallRecord(
            role, method, range(len(pending)), pending, len(pending), lambda _: None, pool=pool, within_s=within_s,
            setting=setting,
        )  # fmt: skip
        self.watch(record)
        return record

    def values(self, record: CallRecord) -> list[Any]:
        """Wait for a call that was asked, and return its values by rank."""
        return [report.value for report in self.wait(record) if report is not None]

    def wait(self, record: CallRecord) -> list[Report | None]:
        """Wait for one call; return its reports by rank."""
        while record.missing:
            self._raise_again()
            wanted = [pending for pending in record.pending if pending in self._under_way]
            if not wanted:
                raise HybridFlowError(
                    f"{record.role}.{record.method}: what this call gave was lost with a failure that the run went on "
                    "after; a step that is made again begins with rows of its own"
                )
            self._receive(wanted)
        return record.reports

    def fetch(self, record: CallRecord, rank: int, rows: Any) -> Any:
        """Bring here what a rank gave for a call; raises as `wait`, also if it is lost with the node that it was on."""
        while True:
            try:
                return ray.get(rows, timeout=LOOK_UP_S)
            except ray.exceptions.GetTimeoutError:
                self.poll()
            except LOST as error:
                self._raise_again()
                self._fail(self.health.located(lost(record, rank, error), record.pool, rank))

    def wait_all(self) -> None:
        """Wait until every call of any step has reported: a barrier. What they measured stays with their steps."""
        self._raise_again()
        while pending := [call for call, (record, _) in self._under_way.items() if not record.background]:
            self._receive(pending)

    def wait_step(self, step: int | None) -> None:
        """Wait until every call of a step has reported; what they measured stays with it."""
        self._raise_again()
        while pending := self._of_step(step):
            self._receive(pending)

    def collect_metrics(self) -> dict[str, float]:
        """Wait for the calls of this step, or for those outside of one; join what they measured since the last time."""
        self.wait_step(self._step)
        return self._joined(self._finished.pop(self._step, []))

    def _joined(self, records: Iterable[CallRecord]) -> dict[str, float]:
        joined = Metrics()
        for record in records:
            joined.add(measured(record))
        return joined.result()

    def _of_step(self, step: int | None) -> list[Any]:
        under_way = self._under_way.items()
        return [call for call, (record, _) in under_way if record.step == step and not record.background]

    def idle_s(self, begin: float, end: float) -> dict[str, float]:
        """Return by pool the seconds between two times, of the epoch, in which none of its ranks carried out a call.

        Of what is under way it is said once it is known.
        """
        under_way: dict[tuple[str, int], int] = {}  # calls are in the order in which they were made
        for record, rank in self._under_way.values():
            if name := name_of(record.pool):
                under_way.setdefault((name, rank), record.number)
        return self._idle.within(begin, end, under_way)

    def slowest_ranks(self) -> dict[str, tuple[int, float]]:
        """Return by pool the rank that took longest for the calls since the last time, and by how many seconds."""
        return self._rank_times.slowest()

    def poll(self) -> None:
        """Take in the reports that have come, of any call. Raises RoleError as `wait` does."""
        interrupt.check()
        self._raise_again()
        waiting = list(self._under_way)
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0.05) if waiting else ([], [])
        self._take_in_all(ready)

    def _check_health(self) -> None:
        """Raise RoleError if a rank will not report. What has come is taken in before: this process' time is no rank's.

        Raises ClusterError if a service of the cluster is lost.
        """
        if problem := self.health.problem(record for record, _ in self._under_way.values()):
            self._fail(problem)

    def _receive(self, wanted: list[Any]) -> None:
        """Take these reports in, all at once if they come soon; else those that have come, of any call."""
        interrupt.check()
        if self._background.work is not None:
            self._receive_any(wanted)
            return
        try:
            reports = ray.get(wanted, timeout=LOOK_UP_S)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayError):  # one is late, or its process has died
            self.poll()
            return
        for pending, encoded in zip(wanted, reports, strict=True):
            self._take_in(pending, decoded(encoded, *self._under_way[pending]))
        self._check_health()

    def _receive_any(self, wanted: list[Any]) -> None:
        """Take in those of these reports, and of the background's, that have come; wait for one if none has."""
        others = [pending for pending, (record, _) in self._under_way.items() if record.background]
        asked = [*dict.fromkeys([*wanted, *others])]
        ready, _ = ray.wait(asked, num_returns=len(asked), timeout=0) if asked else ([], [])
        if asked and not ready:
            ready, _ = ray.wait(asked, timeout=LOOK_UP_S)
        self._take_in_all(ready)

    def _take_in_all(self, ready: Iterable[Any]) -> None:
        """Take in reports that have come, and do what is done whenever some have."""
        for pending in ready:
            self._take_in(pending, self._outcome(pending))
        self._check_health()
        self._background.go_on()

    def _note_carried_out(self, record: CallRecord, report: Report) -> None:
        if report.failure is None or not report.failure.follows:
            self._called.add((record.role, record.method))

    def _outcome(self, pending: Any) -> Report:
        """Return the report of a call that has ended in any way."""
        record, rank = self._under_way[pending]
        return received(pending, record, rank, self.health)

    def _take_in(self, pending: Any, report: Report) -> None:
        record, rank = self._under_way.pop(pending)
        self._note_carried_out(record, report)
        if report.failure is not None:
            self._fail(in_step(report.failure, record))
        record.reports[rank] = report
        self._note_span(record, rank, report)
        record.missing -= 1
        if not record.missing:
            record.pending = ()  # the store lets go of them
            self.health.note(record)
            if not self._background.note_finished(record):
                self._finished.setdefault(record.step, []).append(record)

    def _note_span(self, record: CallRecord, rank: int, report: Report) -> None:
        """Take note of when a rank carried out a call, if it is one on a role of a pool."""
        if not report.began or not (pool := name_of(record.pool)):
            return
        self._idle.note(pool, rank, record.number, report.began, report.seconds)
        if len(record.ranks) == record.size:
            self._rank_times.note(pool, rank, report.seconds - report.waited)
        if self.on_span is not None:
            seconds = report.seconds
            self.on_span(CallSpan(pool, rank, record.role, record.method, record.step, report.began, seconds))

    def _fail(self, noticed: Failure) -> NoReturn:
        """Gather what else has failed by now, and leave what follows from it to the policy.

        Raises HybridFlowError if a service of the cluster is lost: ranks are, soon after their node's.
        """
        ray_services.raise_if_lost()
        failures = [noticed]
        others = list(self._under_way)
        ready, _ = ray.wait(others, num_returns=len(others), timeout=GRACE_S) if others else ([], [])
        for pending in ready:
            failure = self._outcome(pending).failure
            if failure is not None:
                failures.append(in_step(failure, self._under_way[pending][0]))
        failed = {*ready}
        silent = [record for pending, (record, _) in self._under_way.items() if pending not in failed]
        failures += [] if noticed.at == 0.0 else self.health.blamed(noticed, silent)
        self._left = {pending: record for pending, (record, _) in self._under_way.items()}
        self._under_way.clear()
        first, *after = sorted(failures, key=lambda failure: (failure.follows, failure.at))
        self._failed = RoleError(first, after)
        self._on_failure.handle(self._failed, self._pools)

    def _raise_again(self) -> None:
        if self._failed is not None:
            raise self._failed


def name_of(pool: RankSource | None) -> str:
    """Return the name of a pool; empty if it has none, as a stand-in for one."""
    return getattr(pool, "name", "")
