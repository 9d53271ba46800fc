"""What ranks run: a training step, a refit and greedy tokens, on any layout."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hybridflow.batch import Batch, Ragged
from hybridflow.config.schema import OptimizerConfig, RolloutConfig
from hybridflow.engines.megatron.engine import MegatronEngine
from hybridflow.engines.outputs import MicroBatch, TokenOutputs
from hybridflow.engines.sampling import Generated, Sampling
from hybridflow.engines.vllm.engine import VllmEngine
from hybridflow.engines.vllm.process_groups import SHARED_MEMORY
from hybridflow.parallel.layout import Layout
from hybridflow.resharding.refit import Refit
from tests.engines.rank_functions import trainer
from tests.resharding.counting import CountingGroup
from tests.resharding.plan.simulate import shardings

_kept: list[VllmEngine] = []


@dataclass
class Transition:
    """What a rank has seen: bytes that came, as counted and as planned, and its replica's greedy tokens.

    Attributes:
        stored: the bytes of Megatron's weights and of vLLM's.
        shared: the shared memory of its groups in vLLM, by name, and whether that name is still there.
        shares: whether vLLM has shared memory at all; its build for CPUs without AVX-512 has none.
    """

    before: Generated
    after: Generated
    received: int
    planned: int
    peak: int
    bound: int
    stored: tuple[int, int]
    shared: dict[str, bool]
    shares: bool


def transition(
    folder: Path, layout: Layout, method: str, parts: list[Ragged], rows: Batch, limit: int, out: Path
) -> Transition:
    """Generate, take a step, refit and generate again; write what was trained.

    Args:
        parts: the prompts of each replica.
        limit: bytes of a bucket.
    """
    megatron = trainer(folder, layout, OptimizerConfig(lr=3e-3), budget=2000)
    vllm = VllmEngine(
        folder,
        layout,
        RolloutConfig(max_sequence_tokens=64, max_concurrent_rows=16, kv_cache_gib=0.05, gpu_memory_fraction=0.1),
        dtype="float32",
        seed=0,
        stop_ids=[0],
    )
    refit = Refit(
        shardings(megatron.shape, layout), megatron.groups, megatron, torch.float32,
        method=method, verify=True, bucket_bytes=limit,
    )  # fmt: skip
    mine = parts[layout.generation_coordinate(megatron.groups.rank).dp]
    greedy, seeds = Sampling(0.0, max_tokens=8), list(range(len(mine)))
    refit(vllm, 0)
    before = vllm.generate(mine, greedy, seeds)
    _learn(megatron, rows)
    counting = CountingGroup(refit.transport.group) if refit.transport.group else None
    refit.transport = replace(refit.transport, group=counting)
    refit(vllm, 1)
    after = vllm.generate(mine, greedy, seeds)
    megatron.export(out)
    rank = megatron.groups.rank
    program = refit.plan.exchange(rank).program
    bound = 4 * (2 * program.largest + max(item.elements for item in program.items))
    received = counting.received if counting else 0
    stored, shared = (megatron.weights.nbytes, vllm.weight_bytes), _shared_memory()
    _forget(vllm)
    shares = hasattr(torch.ops._C, "init_shm_manager")
    peak = refit.peak_bytes
    return Transition(before, after, received, refit.plan.received[rank], peak, bound, stored, shared, shares)


def _learn(megatron: MegatronEngine, rows: Batch) -> None:
    def loss(outputs: TokenOutputs, micro: MicroBatch) -> torch.Tensor:
        return (outputs.log_probs * (2 * (micro.targets % 2) - 1)).sum()

    assert megatron.train(rows, loss).applied


def _shared_memory() -> dict[str, bool]:
    from vllm.distributed.parallel_state import get_pp_group, get_tp_group

    groups = [group for group in (get_tp_group(), get_pp_group()) if group.world_size > 1]
    named = [getattr(group.device_communicator.dist_module, "group_name", None) for group in groups]  # on a CPU
    return {name: any(file.startswith(name) for file in os.listdir(SHARED_MEMORY)) for name in named if name}


def _forget(vllm: VllmEngine) -> None:
    """vLLM has one set of groups a process, and the next layout wants others. An engine that goes ends torch's too."""
    from vllm.distributed import parallel_state

    _kept.append(vllm)
    parallel_state.destroy_model_parallel()
