"""Bytes that a step moves between processes: weights to where they generate, and rows to the ranks that read them.

Weights are counted as the plan of a sync moves them (`hybridflow.resharding.plan`), without making it: a plan has a
line for each weight of each rank, and a search looks at many. In the actor's own processes each of the
n = t·p / (t_g·p_g) ranks of a micro-DP group gets what the n - 1 others have of its generation shard: of the M bytes
that tensor ranks cut, (t·p - t_g·p_g) / (t_g·p_g·t·p) a rank (HybridFlow, table 2). Norms, which all tensor ranks have,
travel only between stages. A pool of its own is sent all that its ranks have.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

from hybridflow.config.schema import Resharding
from hybridflow.engines.base import generation_engines
from hybridflow.engines.sharding import Sharding, TensorSharding
from hybridflow.models import ModelShape, Weight
from hybridflow.parallel.layout import Coordinate, Layout
from hybridflow.planning.arrangement import Arrangement
from hybridflow.planning.estimates import StepBytes
from hybridflow.planning.run_spec import FlowCall, RunSpec, Work

ENTRY_BYTES = {"int": 8, "float": 4, "bool": 1}  # of columns as workers make them; of objects nobody knows
OFFSET_BYTES = 8  # of a row of a ragged column
PER_ROW = {"weight_version": 2.0}  # numbers of a ragged column that do not follow the tokens: a run and its length


class Numbers(NamedTuple):
    """Numbers of the generation shards of all tensor ranks and stages together.

    Attributes:
        cut: of weights that tensor ranks share out, copies of key and value heads as often as there are.
        whole: of those that each tensor rank has, counted once.
    """

    cut: int
    whole: int


def step_bytes(spec: RunSpec, arrangement: Arrangement) -> StepBytes:
    """Return what a step moves. Raises ShardingError for sizes that a model does not allow."""
    syncs = {
        f"{role} → generation": float(sync_bytes(spec, arrangement, role))
        for role, seat in arrangement.seats.items()
        if role in spec.models and (seat.layout.generation is not None or (role == "actor" and _apart(arrangement)))
    }
    rows: dict[str, float] = {}
    for call in spec.flow:
        name = f"{call.role}.{call.method}"
        rows[name] = rows.get(name, 0.0) + call_bytes(call, spec, arrangement)
    return StepBytes(syncs, rows)


def sync_bytes(spec: RunSpec, arrangement: Arrangement, role: str = "actor") -> int:
    """Return the bytes that all ranks together get from others in a weight sync of a policy."""
    model = spec.models[role]
    layout = arrangement.seats[role].layout
    numbers = 0
    if layout.generation is not None:
        numbers += colocated_numbers(spec.generation_engine, model.shape, layout, spec.resharding)
    if role == "actor" and _apart(arrangement):
        numbers += sent_numbers(spec.generation_engine, model.shape, arrangement.seats["rollout"].layout)
    return model.number_bytes * numbers


def _apart(arrangement: Arrangement) -> bool:
    return arrangement.generator == "rollout"


def colocated_numbers(engine: str, shape: ModelShape, layout: Layout, method: Resharding = Resharding.hybrid) -> int:
    """Count the numbers that ranks get from others where training's ranks generate."""
    tensor, pipeline = layout.generation_sizes
    replicas = layout.data * layout.context
    training = layout.tensor * layout.pipeline
    if method is not Resharding.hybrid:
        moved = _numbers(engine, shape, 1, 1)
        whole = moved.whole if layout.pipeline > 1 else 0
        return replicas * (training - 1) * (moved.cut + whole)
    group = training // (tensor * pipeline)
    moved = _numbers(engine, shape, tensor, pipeline)
    whole = moved.whole * tensor if pipeline < layout.pipeline else 0
    return replicas * (group - 1) * (moved.cut + whole)


def sent_numbers(engine: str, shape: ModelShape, generation: Layout) -> int:
    """Count the numbers that generation's own pool is sent."""
    tensor, pipeline = generation.generation_sizes
    sent = _numbers(engine, shape, tensor, pipeline)
    return generation.replicas * (sent.cut + tensor * sent.whole)


@lru_cache(maxsize=1024)
def _numbers(engine: str, shape: ModelShape, tensor: int, pipeline: int) -> Numbers:
    sharding = generation_engines.get(engine).sharding(shape, Layout(tensor, pipeline))
    weights = [weight for stage in range(pipeline) for weight in sharding.weights(Coordinate(pp=stage))]
    cut = sum(prod(weight.shape) * _copies(sharding, weight) for weight in weights if weight.axis is not None)
    return Numbers(cut, sum(prod(weight.shape) for weight in weights if weight.axis is None))


def _copies(sharding: Sharding, weight: Weight) -> int:
    return sharding.copies(weight) if isinstance(sharding, TensorSharding) else 1


def call_bytes(call: FlowCall, spec: RunSpec, arrangement: Arrangement) -> float:
    """Return the bytes that a call's ranks fetch of rows: each of the ranks that compute a row gets all of it."""
    role = arrangement.generator if call.work is Work.generate and call.role == "actor" else call.role
    return call.rows * _row_bytes(call, spec) * _readers(call.work, arrangement.seats[role].layout)


def _readers(work: Work, layout: Layout) -> int:
    """Return how many ranks compute a row together."""
    if work is Work.generate:
        return layout.size // layout.replicas
    return layout.size // layout.data if work in (Work.score, Work.train) else 1


def _row_bytes(call: FlowCall, spec: RunSpec) -> float:
    size = 0.0
    for name, kind in call.reads:
        entry = ENTRY_BYTES.get(kind.removeprefix("ragged "), 0)
        if not kind.startswith("ragged"):
            size += entry
            continue
        tokens = spec.prompt_tokens.mean if name == "prompt_ids" else spec.response_tokens.mean
        size += OFFSET_BYTES + entry * PER_ROW.get(name, tokens)
    return size
