"""Memory of a process that is its own."""

from __future__ import annotations

import ctypes
from pathlib import Path

FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc, see mallinfo(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS.split()]


def own_bytes() -> int:
    """Return the memory of this process that no file is behind, and that no other has: its heaps and stacks."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon:"))


def free_bytes() -> int:
    """Return how much of that is in use by nobody: malloc keeps it in its heaps, for what will be asked for."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = MallInfo
    return int(mallinfo().fordblks)
