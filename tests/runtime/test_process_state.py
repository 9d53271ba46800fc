"""What is asked about a process from outside of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hybridflow.runtime import process_state
from hybridflow.runtime.process_state import GONE, innermost, stacks_of, state_of

BUSY = """
import runpy, sys
def hold():
    print(runpy.run_path(sys.argv[1])["offer_stacks"](), flush=True)
    while True: pass
hold()
"""


@contextmanager
def child(program: str) -> Iterator[tuple[int, int]]:
    """A process, and the number that it prints first."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", program, process_state.__file__], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.pid, int(process.stdout.readline() or -1)
    finally:
        process.kill()
        process.communicate()


def state_soon(pid: int, wanted: str) -> bool:
    end = time.monotonic() + 5
    while state_of(pid) != wanted and time.monotonic() < end:
        time.sleep(0.01)
    return state_of(pid) == wanted


def test_stacks_of_a_busy_process_and_none_of_a_stopped_one() -> None:
    with child(BUSY) as (pid, descriptor):
        assert state_of(pid) not in GONE
        assert "in hold" in stacks_of(pid, descriptor)
        os.kill(pid, signal.SIGSTOP)
        assert state_soon(pid, process_state.STOPPED)
        assert stacks_of(pid, descriptor) == "no stacks: its process is stopped (SIGSTOP), so it cannot answer"
    assert state_of(pid) in GONE
    assert stacks_of(pid, descriptor) == "no stacks: its process is gone"


def test_who_offers_no_stacks_has_none() -> None:
    assert stacks_of(os.getpid(), -1).startswith("no stacks: SIGUSR2 is taken")


STACKS = """Thread 0x00007f01 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait
  File "/usr/lib/python3.11/threading.py", line 1002 in _bootstrap

Current thread 0x00007f02 (most recent call first):
  File "/home/me/my_worker.py", line 12 in forever
  File "/site-packages/hybridflow/runtime/rank.py", line 200 in _done
"""


def test_the_thread_that_carries_a_call_out_says_where_it_is() -> None:
    assert innermost(STACKS) == "forever (/home/me/my_worker.py:12)"
    assert innermost("no stacks: its process is gone") == ""
