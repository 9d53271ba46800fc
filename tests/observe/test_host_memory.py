"""Memory that is left, as a machine and its cgroups tell it; little of it is told once for each share."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridflow.observe.host_memory import HostMemory, MemoryWatch, host_memory

GIB = 2**30


def build_machine(root: Path, *, available: int, cgroup: str, files: dict[str, str]) -> Path:
    """A root of `proc` and `sys` with 64 GiB, so many of which are available."""
    files = {
        "proc/meminfo": f"MemTotal: {64 * 2**20} kB\nMemAvailable: {available * 2**20} kB\nHugePages_Total: 0\n",
        "proc/self/cgroup": cgroup,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def limited(folder: str, limit: str, used: int, cache: int) -> dict[str, str]:
    """A cgroup of version 2, in GiB."""
    return {
        f"{folder}memory.max": limit,
        f"{folder}memory.current": str(used * GIB),
        f"{folder}memory.stat": f"anon 1\ninactive_file {cache * GIB}\n",
    }


@pytest.mark.parametrize(
    ("cgroup", "files", "left", "total"),
    [
        ("0::/\n", {}, 40, 64),
        ("0::/job\n", limited("job/", "max", 3, 0), 40, 64),
        ("0::/job/step\n", limited("job/", str(8 * GIB), 7, 2) | limited("job/step/", "max", 7, 2), 3, 8),
        ("0::/gone\n", limited("", str(8 * GIB), 6, 0), 2, 8),
        (
            "5:cpu:/\n4:memory:/job\n0::/\n",
            {
                "memory/job/memory.limit_in_bytes": str(4 * GIB),
                "memory/job/memory.usage_in_bytes": str(4 * GIB),
                "memory/job/memory.stat": f"total_inactive_file {GIB}\n",
                "memory/memory.limit_in_bytes": str(2**63 - 4096),
                "memory/memory.usage_in_bytes": str(9 * GIB),
                "memory/memory.stat": "total_inactive_file 0\n",
            },
            1,
            4,
        ),
    ],
    ids=["no-limit", "max", "outer", "of-a-container", "version-1"],
)
def test_the_least_of_machine_and_cgroups_is_left(
    cgroup: str, files: dict[str, str], left: int, total: int, tmp_path: Path
) -> None:
    root = build_machine(tmp_path, available=40, cgroup=cgroup, files=files)
    assert host_memory(root) == HostMemory(left * GIB, total * GIB)


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert host_memory(tmp_path) is None
    MemoryWatch(pytest.fail, lambda: None).look()


def test_this_machine_tells() -> None:
    memory = host_memory()
    assert memory is not None and 0 < memory.left <= memory.total


def test_little_is_told_once_for_each_share() -> None:
    said: list[str] = []
    left = iter([50, 9, 8, 5, 4, 50, 1])
    watch = MemoryWatch(said.append, lambda: HostMemory(next(left) * GIB, 100 * GIB))
    for _ in range(7):
        watch.look()
    assert [line.split(" of this")[0] for line in said] == [
        "warning: 9.0 of 100.0 GiB",
        "warning: 5.0 of 100.0 GiB",
    ]
    assert "algorithm.prompts_per_step" in said[0]
    watch = MemoryWatch(said.append, lambda: HostMemory(GIB, 100 * GIB))
    watch.look()
    assert len(said) == 3, "where it falls past both at once, it is told once"
