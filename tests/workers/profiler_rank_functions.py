"""What ranks run: the profiler."""

from __future__ import annotations

import torch.distributed as dist

from hybridflow.config.schema import Config, DType
from hybridflow.parallel.layout import Layout
from hybridflow.workers import Context
from hybridflow.workers.profiler import ProfilerWorker


def profiled() -> dict[str, list[list[float]]]:
    """What it says of small pieces of work."""
    worker = ProfilerWorker(Context(Config(), Layout(data=2), dist.get_rank(), "profiler"))
    collectives = ("all_reduce", "all_gather", "send")
    return {
        **{dtype.value: worker.products(dtype.value, [(2, 4, 8)]) for dtype in DType},
        **{kind: worker.collectives(kind, 2, [256, 4096]) for kind in collectives},
        "of one": worker.collectives("all_reduce", 1, [256]),
        "attention": worker.attention([(1, 2, 8, 16)]),
        "copies": worker.copies([1024]),
        "together": [[worker.together(1)], [worker.together(2)]],
    }
