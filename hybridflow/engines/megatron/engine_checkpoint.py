"""Engine on disk: weights, optimizer, schedule and random states, by Megatron-core's dist-checkpointing.

A tensor is saved whole under its Hugging Face name and shape, as `weights/NAME` (float32), and once the optimizer has
taken a step as `exp_avg/NAME` and `exp_avg_sq/NAME`; so any layout loads what any other saved. Every rank writes what
it holds; what data parallel ranks hold alike, they share out.

Megatron's own state dicts of model and optimizer are not used. In 0.16.1 with torch's AdamW and a distributed
optimizer, that of a fresh one asserts, a load makes all parameters share one `step` tensor, which then counts several
times a step, and the names of a parameter's parts depend on the layout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing import ShardedTensor
from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.serialization import get_default_save_common_strategy
from megatron.core.dist_checkpointing.state_dict_utils import save_preprocess
from megatron.core.dist_checkpointing.strategies.base import SaveShardedStrategy
from megatron.core.dist_checkpointing.strategies.torch import MCoreSavePlanner, mcore_to_pyt_state_dict
from torch import Tensor, nn
from torch.distributed import checkpoint as torch_checkpoint
from torch.distributed.checkpoint.utils import _DistWrapper

from hybridflow.engines.megatron import saved_files, saved_index
from hybridflow.engines.megatron.local_weights import LocalWeights
from hybridflow.engines.megatron.optimizer import MegatronOptimizer
from hybridflow.engines.megatron.optimizer_shards import gather, is_distributed, shard_of
from hybridflow.engines.megatron.rng_states import EngineRandomness
from hybridflow.engines.megatron.saved_files import STATE
from hybridflow.engines.megatron.saved_index import TENSORS
from hybridflow.models import Weight
from hybridflow.models.weight_files import Slice
from hybridflow.observe.disk_errors import writing
from hybridflow.parallel.platform import platform

KINDS = {"weights": "main", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}  # folder name: name in `OptimizerShard`


class DiskWriter(torch_checkpoint.FileSystemWriter):
    """Torch's writer, whose trouble with the disk is known where it happens: of what led to it, peers are not told."""

    def write_data(self, *arguments: Any, **options: Any) -> Any:
        """Write this rank's file. Raises DiskError if there is no room."""
        with writing(Path(self.path)):
            return super().write_data(*arguments, **options)

    def finish(self, *arguments: Any, **options: Any) -> None:
        """Write the index. Raises DiskError if there is no room."""
        with writing(Path(self.path)):
            super().finish(*arguments, **options)


class OneProcess(SaveShardedStrategy):
    """Write torch_dist with torch's own writer, in this process.

    The writer of Megatron-core 0.16.1 is made for saves that go on in the background. For each process it starts
    a manager by `spawn`, which imports `__main__` again (seconds, in each rank), and it forks this process, with its
    threads, to write. The files are the same.
    """

    can_handle_sharded_objects = True

    def save(self, sharded_state_dict: Mapping[str, Any], checkpoint_dir: str | Path) -> None:
        """Write this rank's shards; all ranks call it."""
        shards: list[ShardedTensor] = list(nested_values(sharded_state_dict))
        torch_checkpoint.save(
            mcore_to_pyt_state_dict({shard.key: [shard] for shard in shards}),
            storage_writer=DiskWriter(checkpoint_dir, thread_count=1, sync_files=True),
            planner=MCoreSavePlanner(dedup_replicated_tensors=False, flatten_state_dict=False),
        )


def save(
    weights: LocalWeights,
    optimizer: MegatronOptimizer,
    randomness: EngineRandomness,
    folder: Path,
    extra: Mapping[str, Any],
) -> None:
    """Write `folder`; all ranks call it, and see one file system. If that fails on one of them, it raises on all.

    Args:
        extra: what else belongs to this role; plain JSON, alike on all ranks.
    """
    first = dist.get_rank() == 0
    _on_all("make its folder", folder, lambda: (folder / TENSORS).mkdir(parents=True) if first else None)
    steps = _steps(weights, optimizer)
    _save_tensors(
        {shard.key: shard for kind in _kinds(steps) for shard in _to_save(weights, optimizer, kind)}, folder / TENSORS
    )
    state = {"optimizer_steps": steps, "schedule_steps": optimizer.schedule.num_steps, "extra": dict(extra)}

    def save_rest() -> None:
        randomness.save(_rng_file(folder))
        if first:
            (folder / STATE).write_text(json.dumps({**state, "ranks": dist.get_world_size()}, indent=1))

    _on_all("save the rest", folder, save_rest)


def _save_tensors(shards: dict[str, ShardedTensor], folder: Path) -> None:
    """Write the files that `dist_checkpointing.save` writes; there, ranks wait forever for a first one that fails."""
    sharded, common = save_preprocess(shards, False)
    _on_all("save what is common", folder, lambda: get_default_save_common_strategy().save_common(common, folder))
    strategy = OneProcess("torch_dist", 1)
    strategy.save(sharded, folder)
    config = CheckpointingConfig(strategy.backend, strategy.version)
    _on_all("save the format", folder, lambda: save_config(config, str(folder)) if dist.get_rank() == 0 else None)


def _on_all(what: str, folder: Path, work: Callable[[], None]) -> None:
    """Do something on every rank and wait for all. If it fails on any, it raises on all, so that none waits for it."""

    def write() -> None:
        with writing(folder):
            work()

    _DistWrapper(None, True, 0).all_gather(what, write)


def load(
    weights: LocalWeights, optimizer: MegatronOptimizer, randomness: EngineRandomness, folder: Path
) -> dict[str, Any]:
    """Bring a fresh model and optimizer to what `save` wrote, under any layout, and return what was given as `extra`.

    With another number of ranks than there was, random states stay as they are: there is one a rank. Raises KeyError
    naming a tensor that the checkpoint lacks, HybridFlowError if its index is not what `save` writes.
    """
    saved_index.check(folder)
    state = saved_files.read_state(folder)
    for kind in _kinds(state.optimizer_steps):
        _take(weights, optimizer, kind, folder / TENSORS)
    _set_steps(weights, optimizer, state.optimizer_steps, state.schedule_steps)
    if state.ranks == dist.get_world_size():
        randomness.load(_rng_file(folder))
    return state.extra


def _to_save(weights: LocalWeights, optimizer: MegatronOptimizer, kind: str) -> Iterator[ShardedTensor]:
    """Yield the shards of one kind that this rank writes."""
    at = weights.groups.at
    dp = weights.groups.dp
    inner = optimizer.inner
    for number, (param, parts) in enumerate(_by_param(weights, weights.entries).items()):
        mine = shard_of(inner, param)
        writer = number % dp.size()  # what data parallel ranks have alike, they share out
        values = None if mine is None else mine.main if kind == "weights" else mine.adam[KINDS[kind]]
        if is_distributed(inner):
            values = gather(values, mine.span if mine else (0, 0), param.shape, writer, dp)
        if at.dp == writer:
            assert values is not None
            yield from (
                _shard(kind, part, weights.view(values.detach(), part.weight).to("cpu").reshape(part.shape))
                for part in parts
                if part.elements and (part.weight.axis is not None or at.tp == 0)
            )


@torch.no_grad()
def _take(weights: LocalWeights, optimizer: MegatronOptimizer, kind: str, folder: Path) -> None:
    """Read one kind and give it to the model and the optimizer."""
    inner = optimizer.inner
    params = _by_param(weights, [part.weight for part in weights.slices])
    wanted = [part for parts in params.values() for part in parts if part.elements]
    shards = {f"{kind}/{part.weight.name}": _shard(kind, part, torch.empty(part.shape)) for part in wanted}
    loaded = dist_checkpointing.load(shards, str(folder), validate_access_integrity=False)
    for param, parts in params.items():
        whole = torch.zeros(param.shape)  # rows past the vocabulary stay zero
        for part in parts:
            if part.elements:
                view = weights.view(whole, part.weight)
                view.copy_(loaded[f"{kind}/{part.weight.name}"].view(view.shape))
        if kind == "weights":
            param.copy_(whole)
        mine = shard_of(inner, param)
        if mine is not None:
            mine.fill(KINDS[kind], whole)


def _by_param(weights: LocalWeights, some: list[Weight]) -> dict[nn.Parameter, list[Slice]]:
    """Return Megatron's parameters, and the weights in each of them."""
    slices: dict[nn.Parameter, list[Slice]] = {}
    for weight in some:
        span = weights.sharding.region(weight, weights.groups.at)
        assert span is not None
        slices.setdefault(weights.param(weight), []).append(Slice(weight, span))
    return slices


def _shard(kind: str, part: Slice, values: Tensor) -> ShardedTensor:
    shape = part.weight.shape
    axis = part.weight.axis
    offset = tuple(part.span[0] if i == axis else 0 for i in range(len(shape)))
    # No `axis_fragmentations`: the shards of a vocabulary need not be of one size.
    return ShardedTensor(f"{kind}/{part.weight.name}", values, values.dtype, tuple(values.shape), shape, offset, None)


def _kinds(steps: int) -> list[str]:
    """Before its first step AdamW has no moments."""
    return list(KINDS) if steps else ["weights"]


def _steps(weights: LocalWeights, optimizer: MegatronOptimizer) -> int:
    """Return the steps that the optimizer has taken. With a distributed one, a rank may have no parameter to ask."""
    parts = [shard_of(optimizer.inner, param) for param in _by_param(weights, weights.entries)]
    counts = {int(part.adam["step"]) if part.adam else 0 for part in parts if part is not None}
    if len(counts) > 1:
        raise RuntimeError(f"parameters have been updated {sorted(counts)} times: they should have been alike")
    steps = torch.tensor(max(counts, default=0), device=platform().device)
    dist.all_reduce(steps, dist.ReduceOp.MAX)
    return int(steps)


def _set_steps(weights: LocalWeights, optimizer: MegatronOptimizer, steps: int, scheduled: int) -> None:
    for param in _by_param(weights, [part.weight for part in weights.slices]):
        mine = shard_of(optimizer.inner, param)
        if mine is not None and steps:
            mine.adam["step"] = torch.tensor(float(steps))  # each its own: AdamW counts in place
    optimizer.schedule.num_steps = 0
    optimizer.schedule.step(scheduled)


def _rng_file(folder: Path) -> Path:
    return saved_files.random_file(folder, dist.get_rank())
