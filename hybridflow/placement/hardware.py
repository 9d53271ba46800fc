"""GPUs and cores of this machine, counted without torch or Ray: a command can be refused before either is imported."""

from __future__ import annotations

import ctypes
import os

DRIVER = "libnvidia-ml.so.1"
NOTHING_SHOWN = ("", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES


def local_cpus() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))


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
