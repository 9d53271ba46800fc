"""Plugin that lets ranks of a run fail, each fault once, when they are asked for a certain call.

The environment says what happens. HYBRIDFLOW_FAULT is a list, separated by commas, of `ROLE.METHOD:NUMBER:RANK:HOW`, as
`actor.update_actor:2:0:SIGKILL`: at the call of that number, from 0 and since the fault before it, in one process. The
start of a role is its `build`. HOW is a signal, or a name in HOWS. HYBRIDFLOW_FAULT_MARK names a file; with the fault's
number at its end one is made when it happens, that holds the time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from hybridflow.runtime.rank import Rank

FAULT = "HYBRIDFLOW_FAULT"
MARK = "HYBRIDFLOW_FAULT_MARK"

_carried_out = Rank._called
_reported = Rank._reported
_calls: dict[tuple[int, str], int] = {}


def _fail_once(self: Rank, request: Any, declared: Any, chunks: Sequence[Any]) -> Any:
    _fail_if_due(f"{request.role}.{request.method}", self._rank)
    return _carried_out(self, request, declared, chunks)


def _fail_once_in_start(self: Rank, role: str, method: str, make: Callable[[], Any]) -> bytes:
    _fail_if_due(f"{role}.{method}", self._rank)
    return _reported(self, role, method, make)


def _fail_if_due(called: str, own_rank: int) -> None:
    faults = os.environ[FAULT].split(",")
    due = next((number for number in range(len(faults)) if not os.path.exists(mark_of(number))), None)
    if due is None:
        return
    name, number, rank, how = faults[due].split(":")
    count = _calls[due, called] = _calls.get((due, called), -1) + 1
    if called == name and own_rank == int(rank) and count == int(number):
        happens_now(due)
        _happen(how)


def mark_of(number: int) -> str:
    """Return the file that tells that a fault has happened."""
    return f"{os.environ[MARK]}.{number}"


def happens_now(number: int = 0) -> bool:
    """Mark that the fault of that number happens now; return whether it is the first time, in any process."""
    try:
        with open(mark_of(number), "x") as mark:
            mark.write(str(time.time()))
    except FileExistsError:
        return False
    return True


def _raise() -> None:
    raise ZeroDivisionError("a fault that a benchmark asked for")


def _wedge(stick: Callable[[], object]) -> None:
    """Let vLLM's next forward pass in this process never return."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    GPUModelRunner.execute_model = lambda *_, **__: stick()


def _wait_for_ever() -> None:
    """Take a lock that nobody gives back; other threads of Python go on."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def _deadlock() -> None:
    """Take a lock of C's twice, with the interpreter's lock: no thread of Python goes on, and no signal's handler."""
    mutex = ctypes.create_string_buffer(64)
    libc = ctypes.PyDLL(None)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


def _happen(how: str) -> None:
    if how in HOWS:
        HOWS[how]()
        return
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(0.2)  # a signal is delivered soon, not at once


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
    "wedge": lambda: _wedge(_wait_for_ever),
    "deadlock": lambda: _wedge(_deadlock),
}


if os.environ.get(FAULT):
    Rank._called = _fail_once  # type: ignore[method-assign]
    Rank._reported = _fail_once_in_start  # type: ignore[method-assign]
