"""Plugin that lets ranks of a run fail, each fault once, when they are asked for a certain call.

The environment says what happens. HYBRIDFLOW_FAULT is a list, separated by commas, of `ROLE.METHOD:NUMBER:RANK:HOW`, as
`actor.update_actor:2:0:SIGKILL`: at the call of that number, from 0 and since the fault before it, in one process. HOW
is a signal, or a name in HOWS. HYBRIDFLOW_FAULT_MARK names a file; with the fault's number at its end one is made when
it happens, that holds the time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from hybridflow.runtime.rank import Rank

FAULT = "HYBRIDFLOW_FAULT"
MARK = "HYBRIDFLOW_FAULT_MARK"

_carried_out = Rank._called
_calls: dict[tuple[int, str], int] = {}


def _fail_once(self: Rank, request: Any, declared: Any, chunks: Sequence[Any]) -> Any:
    faults = os.environ[FAULT].split(",")
    due = next((number for number in range(len(faults)) if not os.path.exists(mark_of(number))), None)
    if due is not None:
        name, number, rank, how = faults[due].split(":")
        called = f"{request.role}.{request.method}"
        count = _calls[due, called] = _calls.get((due, called), -1) + 1
        if called == name and self._rank == int(rank) and count == int(number):
            with open(mark_of(due), "x") as mark:
                mark.write(str(time.time()))
            _happen(how)
    return _carried_out(self, request, declared, chunks)


def mark_of(number: int) -> str:
    """Return the file that tells that a fault has happened."""
    return f"{os.environ[MARK]}.{number}"


def _raise() -> None:
    raise ZeroDivisionError("a fault that a benchmark asked for")


def _happen(how: str) -> None:
    if how in HOWS:
        return HOWS[how]()
    os.kill(os.getpid(), getattr(signal, how))
    return time.sleep(0.2)  # a signal is delivered soon, not at once


def _after_rows(act: Callable[[], None]) -> None:
    """Let something happen after each record of this process's journal, when other rows are under way."""
    from hybridflow.workers.rollout_journal import RolloutJournal

    written = RolloutJournal.write

    def write_and_act(self: RolloutJournal, record: Any) -> None:
        written(self, record)
        act()

    RolloutJournal.write = write_and_act  # type: ignore[method-assign]


HOWS: dict[str, Callable[[], None]] = {
    "raise": _raise,
    # Time for what the benchmark does to other processes while this call is made.
    "wait": lambda: time.sleep(2.0),
    "wait_in_rows": lambda: _after_rows(lambda: time.sleep(2.0)),
    "die_in_rows": lambda: _after_rows(lambda: os.kill(os.getpid(), signal.SIGKILL)),
}


if os.environ.get(FAULT):
    Rank._called = _fail_once  # type: ignore[method-assign]
