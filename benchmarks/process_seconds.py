"""Wall and processor seconds of programs: of one that ends, and of one and all that it has started, at any moment."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hybridflow.tasks.grading_guard import descendants

LOOK_EVERY_S = 0.1
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Seconds:
    """Seconds by the clock, and those of the processor, of all threads and processes together."""

    wall: float
    cpu: float


def seconds_of(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Seconds:
    """Run a program to its end. Raises RuntimeError, with what it printed, if it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{printed[-2000:]}")
    return Seconds(wall, usage.ru_utime + usage.ru_stime)


class TreeSeconds:
    """Looks every so often at the processor seconds of a process and of all that it has started."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._at: list[float] = []
        self._cpu: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._began = time.time()

    def __enter__(self) -> TreeSeconds:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def until(self, moment: float) -> Seconds:
        """Return the seconds from its begin to a moment of the epoch; those of the processor within one look."""
        place = min(bisect_left(self._at, moment), len(self._at) - 1)
        return Seconds(moment - self._began, self._cpu[place])

    def _look_on(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            used = sum(map(processor_seconds, [self._pid, *descendants(self._pid)]))
            self._at.append(time.time())
            self._cpu.append(max([used, *self._cpu[-1:]]))  # what has ended is counted by nobody


def processor_seconds(pid: int) -> float:
    """Return what a process has used, with what it started and has waited for; 0: it has ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS
    return 0.0
