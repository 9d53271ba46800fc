"""What the ranks of two pools run: a training step on the one, a refit, and greedy tokens on the other."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from hybridflow.batch import Batch, Ragged
from hybridflow.config.schema import OptimizerConfig, RolloutConfig
from hybridflow.engines.sampling import Generated, Sampling
from hybridflow.engines.vllm.engine import VllmEngine
from hybridflow.models import read_shape
from hybridflow.parallel.layout import Layout
from hybridflow.resharding.pool_link import connect
from hybridflow.resharding.pool_refit import PoolRefit, WeightSender
from tests.engines.rank_functions import trainer
from tests.engines.vllm.transitions import _learn
from tests.resharding.plan.simulate import shardings

TIMEOUT_S = 120.0


def give(folder: Path, meeting: Path, training: Layout, generation: Layout, rows: Batch, out: Path) -> None:
    """A training rank: give, take a step, give again, and write what was trained."""
    megatron = trainer(folder, training, OptimizerConfig(lr=3e-3), budget=2000)
    link = connect(f"file://{meeting}", training, generation, dist.get_rank(), TIMEOUT_S)
    both = shardings(megatron.shape, training, generation)
    giving = WeightSender(both, link, megatron, torch.float32, verify=True, bucket_bytes=150_000)
    takers = range(training.size, training.size + generation.size)
    giving(dict.fromkeys(takers, -1), 0)
    _learn(megatron, rows)
    giving(dict.fromkeys(takers, 0), 1)
    megatron.export(out)


def take(
    folder: Path, meeting: Path, training: Layout, generation: Layout, prompts: Ragged
) -> tuple[Generated, Generated]:
    """A rollout rank: greedy tokens before and after the step."""
    rank = training.size + dist.get_rank()
    rollout = RolloutConfig(max_sequence_tokens=64, max_concurrent_rows=16, kv_cache_gib=0.05, gpu_memory_fraction=0.1)
    vllm = VllmEngine(folder, generation, rollout, dtype="float32", seed=0, stop_ids=[0])
    link = connect(f"file://{meeting}", training, generation, rank, TIMEOUT_S)
    both = shardings(read_shape(folder), training, generation)
    refit = PoolRefit(both, link, torch.float32, verify=True, bucket_bytes=150_000)
    found = []
    for version in (0, 1):
        assert refit(vllm, version)
        found.append(vllm.generate(prompts, Sampling(0.0, max_tokens=8), list(range(len(prompts)))))
    return found[0], found[1]
