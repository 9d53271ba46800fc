"""State and stacks of a process of this node, asked from outside of it: it need not answer, nor hold its GIL.

A rank that computes for minutes in one kernel answers no call, and is well. What the kernel says of its process is true
whatever it does: so it is asked there, and not by a call.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

STACKS_SIGNAL = signal.SIGUSR2
STACKS_WITHIN_S = 1.0
STOPPED = "T"  # as by SIGSTOP; not `t`, which a debugger's or a profiler's process is for as long as it is looked at
GONE = ("", "Z", "X")
RAYS_TITLE = b"ray::"
CALL_FRAME = "runtime/rank.py"  # of the thread that carries a call out

_held: list[int] = []  # descriptors that faulthandler writes to


def state_of(pid: int) -> str:
    """Return the letter of a process's state in /proc, `""` if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]  # a process may have brackets in its name


def offer_stacks() -> int:
    """Let this process write its stacks into memory at a signal; return the descriptor of that, -1 if it cannot.

    The handler is C's: it also writes while a thread holds the GIL.
    """
    with suppress(OSError, AttributeError, RuntimeError, ValueError):
        if signal.getsignal(STACKS_SIGNAL) is not signal.SIG_DFL:  # it means something to a module of the user's
            return -1
        descriptor = os.memfd_create("hybridflow-stacks")
        faulthandler.register(STACKS_SIGNAL, descriptor, all_threads=True)
        _held.append(descriptor)
        return descriptor
    return -1


def stacks_of(pid: int, descriptor: int) -> str:
    """Return the stacks of a process that offered them, or in one line why there are none."""
    state = state_of(pid)
    if state in GONE:
        return "no stacks: its process is gone"
    if state == STOPPED:
        return "no stacks: its process is stopped (SIGSTOP), so it cannot answer"
    if descriptor < 0:
        return f"no stacks: {STACKS_SIGNAL.name} is taken in its process, or this system cannot do it"
    file = Path(f"/proc/{pid}/fd/{descriptor}")
    try:
        before = file.stat().st_size
        os.kill(pid, STACKS_SIGNAL)
        text = _written(file, before)
    except OSError as error:
        return f"no stacks: {error.strerror}"
    return text or f"no stacks: it did not answer within {STACKS_WITHIN_S:g} s"


def _written(file: Path, before: int) -> str:
    """Return what is written into a file from `before` on, once it grows no more."""
    end = time.monotonic() + STACKS_WITHIN_S
    size = before
    while time.monotonic() < end:
        time.sleep(0.05)
        now = file.stat().st_size
        if now == size > before:
            break
        size = now
    with file.open("rb") as stream:
        stream.seek(before)
        return stream.read().decode(errors="replace")


def innermost(stacks: str) -> str:
    """Return where the thread that carries a call out is, as `function (file:line)`; empty if the stacks do not say."""
    threads = re.split(r"^(?=(?:Current t|T)hread 0x)", stacks, flags=re.MULTILINE)
    own = next((thread for thread in threads if CALL_FRAME in thread), "")
    found = re.search(r'File "([^"]+)", line (\d+) in (\S+)', own)
    return f"{found[3]} ({found[1]}:{found[2]})" if found else ""


def is_rays(pid: int) -> bool:
    """Tell whether a process is one that Ray runs: else another has its number, or this is not its machine."""
    try:
        return RAYS_TITLE in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class NodeWatcher:
    """Answers for the processes of its node to a controller on another one."""

    def states(self, pids: list[int]) -> list[str]:
        """Return `state_of` each."""
        return [state_of(pid) for pid in pids]

    def stacks(self, pid: int, descriptor: int) -> str:
        """Return `stacks_of` a process."""
        return stacks_of(pid, descriptor)

    def kill(self, pid: int) -> None:
        """End a rank's process by SIGKILL, stopped or not."""
        with suppress(OSError):
            if is_rays(pid):
                os.kill(pid, signal.SIGKILL)
