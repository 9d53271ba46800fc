"""The supervisor: knows every call under way, and makes the first failure the error that the user sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from hybridflow.controller import interrupt
from hybridflow.controller.failure import Failure, RoleError
from hybridflow.observe.metrics import Metrics

LOOK_UP_S = 1.0  # a wait is no longer than this without a look at whether the user wants to stop
GRACE_S = 0.5  # after a failure, for the reports of calls that had failed before it


@dataclass
class CallRecord:
    """One call on a group: a report to come from each rank."""

    role: str
    method: str
    reports: list[Any]
    collect: Callable[[list[Any]], Any]
    done: dict[Any, Any] = field(default_factory=dict)


class Supervisor:
    """Watches calls. `wait` and `drain` raise as soon as any call fails, whichever they are waiting for.

    On a failure the ranks are killed: the others of its group may wait for it in a collective. Whatever is waited for
    after that raises the same failure.
    """

    def __init__(self) -> None:
        self._under_way: dict[Any, CallRecord] = {}
        self._finished: list[CallRecord] = []
        self._ranks: list[Any] = []
        self._failed: RoleError | None = None

    def guard(self, ranks: Sequence[Any]) -> None:
        """Count these actors among those to end after a failure."""
        self._ranks.extend(ranks)

    def watch(self, record: CallRecord) -> None:
        """A call has been made."""
        for report in record.reports:
            self._under_way[report] = record

    def settle(self, reports: list[Any], role: str, method: str) -> list[Any]:
        """Watch and wait for one call whose metrics nobody wants."""
        record = CallRecord(role, method, reports, lambda _: None)
        self.watch(record)
        return self.wait(record)

    def wait(self, record: CallRecord) -> list[Any]:
        """The reports of one call, by rank."""
        while len(record.done) < len(record.reports):
            self._raise_again()
            self._next()
        return [record.done[report] for report in record.reports]

    def drain(self) -> dict[str, float]:
        """Wait for every call, and give the metrics of all that ended since the last time."""
        self._raise_again()
        while self._under_way:
            self._next()
        finished, self._finished = self._finished, []
        joined, seconds = Metrics(), Metrics()
        for record in finished:
            reports = [record.done[report] for report in record.reports]
            found = record.collect([report.metrics for report in reports])
            for metrics in found if isinstance(found, list) else [found]:
                if metrics is not None:
                    joined.add(metrics)
            seconds.total(f"timing_s/{record.method}", max(report.seconds for report in reports))
        return {**seconds.result(), **joined.result()}

    def _next(self) -> None:
        """Take in at least one report."""
        ready: list[Any] = []
        while not ready:
            interrupt.check()
            ready, _ = ray.wait(list(self._under_way), num_returns=1, timeout=LOOK_UP_S, fetch_local=True)
        for reference in ready:
            report = self._take(reference)
            if report.failure is not None:
                self._fail(report.failure)

    def _take(self, reference: Any) -> Any:
        record = self._under_way.pop(reference)
        rank = record.reports.index(reference)
        try:
            report = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._fail(_lost(record, rank, error))
        record.done[reference] = report
        if len(record.done) == len(record.reports):
            self._finished.append(record)
        return report

    def _fail(self, found: Failure) -> None:
        """Gather what else has failed by now, end the ranks, and raise the first failure."""
        failures = [found]
        ready, _ = (
            ray.wait(list(self._under_way), num_returns=len(self._under_way), timeout=GRACE_S)
            if self._under_way
            else ([], [])
        )
        for reference in ready:
            record = self._under_way[reference]
            try:
                report = ray.get(reference)
            except ray.exceptions.RayError as error:
                failures.append(_lost(record, record.reports.index(reference), error))
                continue
            if report.failure is not None:
                failures.append(report.failure)
        for rank in self._ranks:
            ray.kill(rank)
        self._under_way.clear()
        first = min(failures, key=lambda failure: (failure.follows, failure.at))
        self._failed = RoleError(first, len(failures) - 1)
        raise self._failed

    def _raise_again(self) -> None:
        if self._failed is not None:
            raise self._failed


def _lost(record: CallRecord, rank: int, error: Exception) -> Failure:
    """A call whose process has died.

    It counts as the first of all failures: it becomes known late, and what other ranks raise then follows from it.
    """
    line = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return Failure(record.role, rank, "its process", record.method, line, str(error), at=0.0)
