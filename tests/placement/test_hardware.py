"""GPUs counted without torch: a driver of this test's own stands in for NVIDIA's, and Ray is asked the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hybridflow.placement.hardware import cpu_quota

pytestmark = pytest.mark.processes

# What NVIDIA's management library says of a machine with so many GPUs; Ray calls nvmlInitWithFlags.
DRIVER = """
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned int flags) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 3; return 0; }
"""
PROGRAM = """
import os, sys
from hybridflow.placement.hardware import local_gpus
from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager as Rays

for shown in (None, "1", "0,1,2,3", "", "NoDevFiles"):
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    os.environ |= {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
    visible, found = Rays.get_current_process_visible_accelerator_ids(), Rays.get_current_node_num_accelerators()
    print(local_gpus(), found if visible is None else min(found, len(visible)))
"""


def count(**environment: str) -> list[list[str]]:
    """What we and what Ray count, for each value of CUDA_VISIBLE_DEVICES."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return [line.split() for line in ran.stdout.splitlines()]


def test_gpus_are_counted_as_ray_counts_them(tmp_path: Path) -> None:
    (tmp_path / "nvml.c").write_text(DRIVER)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "libnvidia-ml.so.1", tmp_path / "nvml.c"], check=True)
    assert count(LD_LIBRARY_PATH=str(tmp_path)) == [["3", "3"], ["1", "1"], ["3", "3"], ["0", "0"], ["0", "0"]]


def test_this_machines_gpus_are_counted_as_ray_counts_them() -> None:
    assert all(ours == rays for ours, rays in count())


@pytest.mark.parametrize(
    ("cgroup", "files", "cores"),
    [
        ("0::/\n", {}, None),
        ("0::/job\n", {"job/cpu.max": "max 100000"}, None),
        ("0::/job/step\n", {"job/cpu.max": "250000 100000", "job/step/cpu.max": "max 100000"}, 2.5),
        ("0::/job/step\n", {"job/cpu.max": "250000 100000", "job/step/cpu.max": "50000 100000"}, 0.5),
        ("0::/gone\n", {"cpu.max": "400000 100000"}, 4.0),
        (
            "4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n",
            {"cpu/job/cpu.cfs_quota_us": "150000", "cpu/job/cpu.cfs_period_us": "50000", "cpu/cpu.cfs_quota_us": "-1"},
            3.0,
        ),
        ("", {}, None),
    ],
    ids=["no-limit", "max", "outer", "inner", "of-a-container", "version-1", "unknown"],
)
def test_the_time_that_a_cgroup_may_take(
    cgroup: str, files: dict[str, str], cores: float | None, tmp_path: Path
) -> None:
    written = {"proc/self/cgroup": cgroup} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == cores
