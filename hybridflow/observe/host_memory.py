"""Memory that is left on this machine, or to the cgroup that this process is in; told before the kernel ends a rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LOW = (0.1, 0.06)  # shares that are left, at each of which it is told once; at 0.05 Ray ends a process
UNLIMITED = 2**60  # what cgroups of version 1 say where there is no limit is about 2**63
LESS = (
    "It takes less with smaller actor.max_tokens_per_rank, rollout.kv_cache_gib or algorithm.prompts_per_step, with "
    "fewer slots in placement.pools, or with actor.optimizer.distributed=true"
)


@dataclass(frozen=True)
class HostMemory:
    """Bytes that are left, and of how many."""

    left: int
    total: int

    def __str__(self) -> str:
        return f"{self.left / 2**30:.1f} of {self.total / 2**30:.1f} GiB"


class MemoryWatch:
    """Looks at the memory that is left, and tells when little is; once for each share of `LOW`."""

    def __init__(self, say: Callable[[str], None], measure: Callable[[], HostMemory | None] | None = None) -> None:
        self._say = say
        self._measure = measure or host_memory
        self._not_told = list(LOW)

    def look(self) -> None:
        """Look once more; some file reads."""
        memory = self._measure()
        while memory and self._not_told and memory.left < self._not_told[0] * memory.total:
            share = self._not_told.pop(0)
            if not self._not_told or memory.left >= self._not_told[0] * memory.total:
                self._say(
                    f"warning: {memory} of this machine's memory are left, less than {share:.0%}; when it is used up, "
                    f"a process of the run is ended. {LESS}"
                )


def host_memory(root: Path = Path("/")) -> HostMemory | None:
    """Return what is left to this process: the least of its machine and its cgroups. None: this system does not tell.

    Args:
        root: below which `proc` and `sys` are.
    """
    with suppress(OSError, ValueError, KeyError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        known = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if len(line.split()) > 1}
        machine = HostMemory(known["MemAvailable"], known["MemTotal"])
        return min([machine, *_cgroups(root, machine.total)], key=lambda memory: memory.left)
    return None


def _cgroups(root: Path, total: int) -> Iterator[HostMemory]:
    """Yield what is left to each cgroup that this process is in and that has a limit; from the inside out."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        cache = "total_inactive_file" if controllers else "inactive_file"
        inner = mount / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(mount):
                with suppress(OSError, ValueError):  # none here: of a container, or "max"
                    limit, used = (int((folder / name).read_text()) for name in names)
                    if limit < min(UNLIMITED, total):
                        yield HostMemory(limit - used + _of(folder / "memory.stat", cache), limit)


def _of(file: Path, name: str) -> int:
    """Return a number of a file of names and numbers; here of what the kernel gives back when it is needed."""
    for line in file.read_text().splitlines():
        if line.split()[0] == name:
            return int(line.split()[1])
    return 0
