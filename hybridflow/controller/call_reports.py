"""Reports of calls, in whatever way these have ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import ray

from hybridflow import interrupt
from hybridflow.controller.call_record import CallRecord, lost
from hybridflow.controller.failure_policy import RankSource
from hybridflow.controller.health import Health
from hybridflow.runtime.failure import Failure, describe
from hybridflow.runtime.messages import Report

LOOK_UP_S = 0.5  # a wait is no longer than this without a look at whether the user wants to stop, or a call has failed


def received(pending: Any, record: CallRecord, rank: int, health: Health) -> Report:
    """Return the report of a rank on a call that has ended; if its process has died, one that says where."""
    try:
        encoded = ray.get(pending)
    except ray.exceptions.RayError as error:
        return Report(failure=health.located(lost(record, rank, error), record.pool, rank))
    return decoded(encoded, record, rank)


def decoded(encoded: bytes, record: CallRecord, rank: int) -> Report:
    """Return a report as it was sent; a failure if it cannot be read here."""
    try:
        return Report.decode(encoded)
    except Exception as error:  # a value of a class that only the rank can import
        line, trace = describe(error)
        line = f"what it returned cannot be read here: {line}"
        return Report(failure=Failure(record.role, rank, "this process", record.method, line, trace))


def settled(
    calls: Mapping[Any, CallRecord],
    gone: list[RankSource],
    health: Health,
    within_s: float,
    note: Callable[[CallRecord, Report], None],
) -> list[RankSource]:
    """Wait until what was under way when a call failed has been done or given up; return the pools that are lost.

    Args:
        gone: pools of which that is known. They are ended at once: others may wait for rows of one that hangs.
        within_s: after which a pool whose ranks are still at work counts as lost.
        note: is told of each call that has ended.
    """
    end = monotonic() + within_s
    left = dict(calls)
    while left and monotonic() < end:
        interrupt.check()
        gone = _with_more(gone, health)
        for pool in gone:
            health.end(pool)
        left = {pending: record for pending, record in left.items() if record.pool not in gone}
        if left:
            ready, _ = ray.wait(list(left), num_returns=len(left), timeout=LOOK_UP_S)
            for pending in ready:
                record = left.pop(pending)
                note(record, _of_left(pending, record))
    at_work = {id(record.pool): record.pool for record in left.values() if record.pool is not None}
    return [*_with_more(gone, health), *at_work.values()]


def _with_more(gone: list[RankSource], health: Health) -> list[RankSource]:
    return [*gone, *(pool for pool in health.lost_pools() if pool not in gone)]


def _of_left(pending: Any, record: CallRecord) -> Report:
    """Return the report of a call that was under way when another failed."""
    try:
        return Report.decode(ray.get(pending))
    except Exception as error:  # of its process, or of what it was given; or a value that cannot be read here
        return Report(failure=lost(record, record.ranks[0], error))
