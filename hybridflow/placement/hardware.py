"""GPUs and cores of this machine, counted without torch or Ray: a command can be refused before either is imported."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

DRIVER = "libnvidia-ml.so.1"
NOTHING_SHOWN = ("", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES


def local_cpus() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many cores' worth of time the cgroup of this process may take; None: as much as there is.

    A container that is given 2 CPUs still sees all cores of its machine.

    Args:
        root: below which `proc` and `sys` are.
    """
    with suppress(OSError, ValueError):
        return min(_quotas(root), default=None)
    return None


def _quotas(root: Path) -> Iterator[float]:
    """Yield the limits of each cgroup that this process is in, by either version of cgroups."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / ("sys/fs/cgroup/cpu" if controllers else "sys/fs/cgroup")
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        inner = mount / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(mount):
                with suppress(OSError, ValueError):  # none here, or "max"
                    quota, period = (int(word) for name in names for word in (folder / name).read_text().split())
                    if quota > 0:
                        yield quota / period


def local_gpus() -> int:
    """Count the GPUs that a Ray cluster started on this machine would have.

    Ray asks NVIDIA's driver in the same way, and no more than the entries of CUDA_VISIBLE_DEVICES count.
    """
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown in NOTHING_SHOWN:
        return 0
    gpus = _driver_gpus()
    return gpus if shown is None else min(gpus, len(shown.split(",")))


def _driver_gpus() -> int:
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return 0
    if driver.nvmlInit_v2() != 0:  # installed, but its kernel module is not loaded
        return 0
    count = ctypes.c_uint(0)
    driver.nvmlDeviceGetCount_v2(ctypes.byref(count))
    driver.nvmlShutdown()
    return count.value
