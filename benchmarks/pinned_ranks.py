"""Plugin that gives the ranks of each pool cores of their own: generation's the last one, all other ranks' the first.

On a machine of two cores the pools of 1 + 1 ranks then have one each. The controller and Ray's processes stay where the
system puts them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybridflow.runtime.rank import Rank

_carry_out = Rank._called
_cores = sorted(os.sched_getaffinity(0))  # that this process may have, before it is pinned
_pinned = False


def _pin_first(self: Rank, request: Any, declared: Any, chunks: Sequence[Any]) -> Any:
    """Pin this process at its first call, by the role that is called."""
    global _pinned
    if not _pinned:
        _pinned = True
        pin(_cores[-1] if request.role == "rollout" else _cores[0])
    return _carry_out(self, request, declared, chunks)


def pin(core: int) -> None:
    """Keep every thread of this process on a core."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


Rank._called = _pin_first  # type: ignore[method-assign]
