"""Guard over the process that grades: what graders have started ends with it, and all of it with the rank.

The guard is the process that the rank starts. It forks the one that grades and adopts whatever that leaves behind, also
what has a session of its own. It runs none of a grader's code, so no grader can keep it from its work.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
REAP_EVERY_MS = 10_000  # what graders left behind and has ended
END_WITHIN_S = 5.0  # a process may take a while to die, in the middle of a write


def fork_guarded(lifeline: int, *others: int) -> None:
    """Go on in a forked process; this one becomes its guard, and never returns.

    Args:
        lifeline: the reading end of a pipe that the rank holds: closed, it ends everything.
        others: descriptors that the process that grades needs, and the guard does not.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    guard = os.getpid()
    grading = os.fork()
    if not grading:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # it ended before that
            os._exit(1)
        os.close(lifeline)
        return
    for descriptor in others:
        os.close(descriptor)
    _leave(_watch(grading, lifeline))


def _watch(grading: int, lifeline: int) -> int:
    """Wait until the rank or the process that grades has ended, end what is left, and return that one's wait status."""
    statuses: dict[int, int] = {}
    poll = select.poll()
    poll.register(lifeline, select.POLLHUP)
    poll.register(os.pidfd_open(grading), select.POLLIN)
    while not poll.poll(REAP_EVERY_MS):
        _reap(statuses)
    until = monotonic() + END_WITHIN_S
    _reap(statuses)
    while (left := descendants(os.getpid())) and monotonic() < until:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap(statuses)
    return statuses.get(grading, 0)


def _reap(statuses: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            statuses[pid] = status


def descendants(pid: int) -> list[int]:
    """List the processes that a process has started, and those that they have, the nearest first."""
    found: list[int] = []
    left = [pid]
    while left:
        for children in Path(f"/proc/{left.pop(0)}/task").glob("*/children"):
            with suppress(OSError):  # it has ended
                left += map(int, children.read_text().split())
        found = [*found, *(one for one in left if one not in found)]
    return found


def _leave(status: int) -> None:
    """End as the process that grades did, which the rank is to tell of."""
    sys.stdout.flush()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 1)
