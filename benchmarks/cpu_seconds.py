"""CPU seconds of another process, from Linux' `/proc`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Return what the process's threads have used so far, to the microsecond; 0 for one that has ended.

    /proc/PID/stat has it in hundredths of a second. Threads that have ended are not counted.
    """
    total = 0
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9
