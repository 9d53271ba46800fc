"""Processes that outlive a run: found by an environment that all of a benchmark's carry, or by who started them."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from hybridflow.tasks.grading_guard import descendants

MARK = "HYBRIDFLOW_BENCHMARK"
SETTLE_S = 5.0  # for processes that are ending when a run has ended


class LeftProcesses:
    """What is started after this was made, and has not ended.

    Args:
        mark: text that this process puts into its environment, for whatever it starts to inherit.
    """

    def __init__(self, mark: str) -> None:
        os.environ[MARK] = mark
        self._mark = f"{MARK}={mark}".encode()
        self._before = {os.getpid(), *self._found()}

    def end(self) -> list[str]:
        """Give processes a while to end, kill what has not, and return the command lines of these."""
        until = time.monotonic() + SETTLE_S
        while (left := self._left()) and time.monotonic() < until:
            time.sleep(0.05)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return list(left.values())

    def _left(self) -> dict[int, str]:
        """Return the living processes that were started since; one that has ended has no command line."""
        found = {
            pid: _read(pid, "cmdline").replace(b"\0", b" ").decode("utf-8", "replace")[:200] for pid in self._found()
        }
        return {pid: command for pid, command in found.items() if command and pid not in self._before}

    def _found(self) -> set[int]:
        """Return the processes with the mark, and those that this one or they have started."""
        pids = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal())
        marked = {pid for pid in pids if self._mark in _read(pid, "environ").split(b"\0")}
        return marked.union(*(descendants(pid) for pid in {os.getpid(), *marked}))


def _read(pid: int, file: str) -> bytes:
    with suppress(OSError):  # it has ended
        return Path(f"/proc/{pid}/{file}").read_bytes()
    return b""
