"""An engine on disk: weights, optimiser, schedule and random states, by Megatron-core's dist-checkpointing.

A tensor is saved whole under its Hugging Face name and shape, as `weights/NAME` (float32), and once the optimiser has
taken a step as `exp_avg/NAME` and `exp_avg_sq/NAME`; so any layout loads what any other saved. Every rank writes what
it holds; what data parallel ranks hold alike, they share out.

Megatron's own state dicts of model and optimiser are not used. In 0.16.1 with torch's AdamW and a distributed
optimiser, that of a fresh one asserts, a load makes all parameters share one `step` tensor, which then counts several
times a step, and the names of a parameter's parts depend on the layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing import ShardedTensor
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.strategies.base import SaveShardedStrategy
from megatron.core.dist_checkpointing.strategies.torch import MCoreSavePlanner, mcore_to_pyt_state_dict
from torch import Tensor, nn
from torch.distributed import checkpoint as torch_checkpoint

from hybridflow.engines.megatron import rng_states
from hybridflow.engines.megatron.engine import MegatronEngine
from hybridflow.engines.megatron.optimizer import MegatronOptimizer
from hybridflow.engines.megatron.optimizer_shards import gather, is_distributed, shard_of
from hybridflow.json_file import read_object
from hybridflow.models import Weight, hf_view
from hybridflow.models.weight_files import Slice
from hybridflow.parallel.platform import platform

STATE, TENSORS = "state.json", "tensors"
KINDS = {"weights": "main", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}  # folder name: name in `OptimizerShard`


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
            storage_writer=torch_checkpoint.FileSystemWriter(checkpoint_dir, thread_count=1, sync_files=True),
            planner=MCoreSavePlanner(dedup_replicated_tensors=False, flatten_state_dict=False),
        )


def save(engine: MegatronEngine, folder: Path, extra: Mapping[str, Any]) -> None:
    """Write `folder`; all ranks call it, and see one file system.

    Args:
        extra: what else belongs to this role; plain JSON, alike on all ranks.
    """
    optimiser = _optimiser(engine)
    if dist.get_rank() == 0:
        (folder / TENSORS).mkdir(parents=True)
    dist.barrier()
    steps = _steps(engine)
    shards = {shard.key: shard for kind in _kinds(steps) for shard in _to_save(engine, kind)}
    strategy = OneProcess("torch_dist", 1)
    dist_checkpointing.save(shards, str(folder / TENSORS), strategy, validate_access_integrity=False)
    rng_states.save(_rng_file(folder))
    if dist.get_rank() == 0:
        state = {"optimizer_steps": steps, "schedule_steps": optimiser.schedule.num_steps, "extra": dict(extra)}
        (folder / STATE).write_text(json.dumps({**state, "ranks": dist.get_world_size()}, indent=1))
    dist.barrier()


def load(engine: MegatronEngine, folder: Path) -> dict[str, Any]:
    """Bring a freshly built engine to what `save` wrote, under any layout; what was given as `extra`.

    With another number of ranks than there was, random states stay as they are: there is one a rank. Raises KeyError
    naming a tensor that the checkpoint lacks.
    """
    state = read_object(folder / STATE)
    for kind in _kinds(state["optimizer_steps"]):
        _take(engine, kind, folder / TENSORS)
    _set_steps(engine, state["optimizer_steps"], state["schedule_steps"])
    if state["ranks"] == dist.get_world_size():
        rng_states.load(_rng_file(folder))
    return dict(state["extra"])


def _to_save(engine: MegatronEngine, kind: str) -> Iterator[ShardedTensor]:
    """Yield the shards of one kind that this rank writes."""
    at, dp = engine.groups.at, engine.groups.megatron.dp
    inner = _optimiser(engine).inner
    for number, (param, parts) in enumerate(_by_param(engine, engine.weights.entries).items()):
        mine, writer = shard_of(inner, param), number % dp.size()
        values = None if mine is None else mine.main if kind == "weights" else mine.adam[KINDS[kind]]
        if is_distributed(inner):
            values = gather(values, mine.span if mine else (0, 0), param.shape, writer, dp)
        if at.dp == writer:
            assert values is not None
            yield from (
                _shard(kind, part, _view(engine, part.weight, values.detach()).to("cpu").reshape(_size(part)))
                for part in parts
                if part.elements and (part.weight.axis is not None or at.tp == 0)
            )


@torch.no_grad()
def _take(engine: MegatronEngine, kind: str, folder: Path) -> None:
    """Read one kind and give it to the model and the optimiser."""
    inner = _optimiser(engine).inner
    params = _by_param(engine, [part.weight for part in engine.weights.plan])
    wanted = [part for parts in params.values() for part in parts if part.elements]
    shards = {f"{kind}/{part.weight.name}": _shard(kind, part, torch.empty(_size(part))) for part in wanted}
    found = dist_checkpointing.load(shards, str(folder), validate_access_integrity=False)
    for param, parts in params.items():
        whole = torch.zeros(param.shape)  # rows past the vocabulary stay zero
        for part in parts:
            if part.elements:
                view = _view(engine, part.weight, whole)
                view.copy_(found[f"{kind}/{part.weight.name}"].view(view.shape))
        if kind == "weights":
            param.copy_(whole)
        mine = shard_of(inner, param)
        if mine is not None:
            mine.fill(KINDS[kind], whole)


def _by_param(engine: MegatronEngine, weights: list[Weight]) -> dict[nn.Parameter, list[Slice]]:
    """Megatron's parameters, and the weights that each of them holds."""
    found: dict[nn.Parameter, list[Slice]] = {}
    for weight in weights:
        part = Slice(weight, weight.span(engine.groups.layout.tensor, engine.groups.at.tp))
        found.setdefault(engine.weights.param(weight), []).append(part)
    return found


def _view(engine: MegatronEngine, weight: Weight, values: Tensor) -> Tensor:
    return hf_view(values, weight, engine.groups.layout.tensor, engine.groups.at.tp)


def _size(part: Slice) -> tuple[int, ...]:
    axis, (a, b) = part.weight.axis, part.span
    shape = part.weight.shape
    return shape if axis is None else (*shape[:axis], b - a, *shape[axis + 1 :])


def _shard(kind: str, part: Slice, values: Tensor) -> ShardedTensor:
    shape, axis = part.weight.shape, part.weight.axis
    offset = tuple(part.span[0] if i == axis else 0 for i in range(len(shape)))
    # No `axis_fragmentations`: the shards of a vocabulary need not be of one size.
    return ShardedTensor(f"{kind}/{part.weight.name}", values, values.dtype, tuple(values.shape), shape, offset, None)


def _kinds(steps: int) -> list[str]:
    """Before its first step AdamW has no moments."""
    return list(KINDS) if steps else ["weights"]


def _steps(engine: MegatronEngine) -> int:
    """Return the steps that the optimizer has taken. With a distributed one, a rank may have no parameter to ask."""
    parts = [shard_of(_optimiser(engine).inner, param) for param in _by_param(engine, engine.weights.entries)]
    counts = {int(part.adam["step"]) if part.adam else 0 for part in parts if part is not None}
    if len(counts) > 1:
        raise RuntimeError(f"parameters have been updated {sorted(counts)} times: they should have been alike")
    most = torch.tensor(max(counts, default=0), device=platform().device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def _set_steps(engine: MegatronEngine, steps: int, scheduled: int) -> None:
    optimiser = _optimiser(engine)
    for param in _by_param(engine, [part.weight for part in engine.weights.plan]):
        mine = shard_of(optimiser.inner, param)
        if mine is not None and steps:
            mine.adam["step"] = torch.tensor(float(steps))  # each its own: AdamW counts in place
    optimiser.schedule.num_steps = 0
    optimiser.schedule.step(scheduled)


def _optimiser(engine: MegatronEngine) -> MegatronOptimizer:
    assert engine.optimiser is not None, "an engine that does not learn has nothing to save"
    return engine.optimiser


def _rng_file(folder: Path) -> Path:
    return folder / f"rng-{dist.get_rank():05d}.safetensors"
