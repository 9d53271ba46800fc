"""What ranks do with many process groups."""

from __future__ import annotations

import json
import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from hybridflow.parallel import gloo_device


def threads_a_group(shared: bool) -> float:
    """Threads that a process group adds, beside groups that there are; with torch's own constructor unless shared."""
    with pytest.MonkeyPatch.context() as patch:
        if not shared:
            gloo_device.apply()
            patch.setattr(dist.ProcessGroupGloo, "__init__", dist.ProcessGroupGloo.__init__.__wrapped__)
        dist.barrier(dist.new_group(backend="gloo"))
        before = len(os.listdir("/proc/self/task"))
        groups = [dist.new_group(backend="gloo") for _ in range(10)]
        added = (len(os.listdir("/proc/self/task")) - before) / len(groups)
        for group in groups:
            dist.destroy_process_group(group)
    return added


def sums_in_many_groups() -> tuple[list[float], timedelta]:
    """Sums of rank numbers that all groups take at once, one group being gone meanwhile; and the time one waits."""
    gloo_device.apply()
    groups = [dist.new_group(backend="gloo", timeout=timedelta(seconds=17)) for _ in range(5)]
    dist.barrier(groups[0])
    dist.destroy_process_group(groups.pop())
    values = [torch.full((1 << 16,), float(dist.get_rank() + number)) for number in range(len(groups))]
    works = [dist.all_reduce(value, group=group, async_op=True) for value, group in zip(values, groups, strict=True)]
    for work in works:
        work.wait()
    timeout = groups[0]._get_backend(torch.device("cpu")).options._timeout
    for group in groups:
        dist.destroy_process_group(group)
    return [float(value.mean()) for value in values], timeout


def noted_collectives() -> int:
    """Collectives that torch has the stacks of."""
    dist.barrier()
    return len(json.loads(torch._C._distributed_c10d._dump_fr_trace_json()).get("entries", []))
