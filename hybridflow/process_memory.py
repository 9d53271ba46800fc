"""Memory of this process, as its kernel counts it (proc(5)); light: no torch."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


def peak_bytes(status: Path = STATUS) -> int:
    """Return the most bytes that this process has had in memory, its VmHWM; 0: this kernel does not tell."""
    with suppress(OSError, ValueError):
        lines = status.read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
    return 0


def reset_peak() -> None:
    """Let the peak be of what comes. Where a kernel lets no process do so, that of its whole life stays."""
    if os.access(CLEAR_REFS, os.W_OK):
        CLEAR_REFS.write_text("5")  # proc_pid_clear_refs(5): the high-water mark is now's
