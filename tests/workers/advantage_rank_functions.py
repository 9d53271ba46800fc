"""Functions that run on ranks: a worker that estimates advantages and has no model."""

from __future__ import annotations

import torch.distributed as dist

from hybridflow.batch import Batch
from hybridflow.config.schema import Config
from hybridflow.dispatch import Call
from hybridflow.parallel.layout import Layout
from hybridflow.workers import Context
from hybridflow.workers.advantage import AdvantageWorker


def estimate(config: Config, parts: list[Call]) -> tuple[Batch, dict[str, float]]:
    """Estimate this rank's part of the rows; its advantages, and what it measured."""
    rank, world = dist.get_rank(), dist.get_world_size()
    worker = AdvantageWorker(Context(config, Layout(data=world), rank, "estimator"))
    mine = parts[rank]
    return worker.compute_advantage(*mine.args, **mine.kwargs), dict(worker.context.metrics)
