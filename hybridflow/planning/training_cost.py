"""Seconds of scoring and of an optimizer's step: arithmetic and communication, and a pipeline's bubbles.

A rank's rows are packed into n micro-batches. A pipeline of p stages takes n + p - 1 turns of the slowest stage. A
stage's turn is its layers' products and attention, two all-reductions a layer over the tensor ranks (with sequence
parallelism a reduce-scatter and an all-gather, of the same bytes), and the engine's own time; a backward takes
`backward` times the arithmetic and as many messages, and what is recomputed once more. Then gradients are added up over
the data parallel ranks, and the optimizer reads and writes its state.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, sqrt
from statistics import NormalDist, fmean

from hybridflow.config.schema import Device, Recompute
from hybridflow.parallel.layout import Layout
from hybridflow.planning import model_arithmetic as arithmetic
from hybridflow.planning.collectives import GroupPlace, all_gather_s, all_reduce_s, group_place, send_s
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.run_spec import FlowCall, RoleModel, Work
from hybridflow.planning.workload import Workload

NINTHS = tuple(NormalDist().inv_cdf((place + 0.5) / 9) for place in range(9))
GRADIENT_BYTES = 4
MOMENT_BYTES = 12  # of a number: its master weight and two moments, in float32
STATE_BYTES = 32  # read and written of a number: gradient, master weight and two moments, in float32, and its weight


@dataclass(frozen=True)
class Occupation:
    """Demand of a call on its ranks.

    Attributes:
        seconds: from its begin to its end, if its ranks are alone.
        ranks: that are at work, on average.
    """

    seconds: float
    ranks: float


def micro_batches(work: Workload, budget: int) -> int:
    """Return into how many micro-batches rows are packed that are taken longest first, or trees of rows that share a
    prompt: these are cut where they would make more than rows do that share nothing.
    """
    if work.rows <= 0:
        return 0
    if work.tokens <= budget:
        return 1
    mean, deviation = work.part_tokens
    parts = work.parts or work.rows
    trees = _filled(parts, mean, deviation, budget)
    rows = _filled(work.rows, work.row_tokens, deviation * sqrt(parts / work.rows), budget)
    return min(ceil(work.rows), max(ceil(work.tokens / budget), min(trees, rows)))


def _filled(parts: float, mean: float, deviation: float, budget: int) -> int:
    """Return how many micro-batches parts of like length fill that lie together: of those of n tokens, ⌊budget / n⌋ are
    in one, or one alone is.
    """
    lengths = (max(mean / 8, mean + away * deviation) for away in NINTHS)
    shares = [1.0 / max(1, floor(budget / length)) for length in lengths]
    return min(ceil(parts), round(parts * fmean(shares)))


def pass_occupation(hardware: Hardware, call: FlowCall, model: RoleModel, layout: Layout, work: Workload) -> Occupation:
    """Return what scoring rows takes, or a step on them if the call trains."""
    count = micro_batches(work, model.max_tokens_per_rank)
    if not count:
        return Occupation(0.0, 0.0)
    trains = call.work is Work.train
    stages = layout.pipeline
    layers = -(-model.shape.layers // stages)
    tokens = work.tokens / count / layout.context
    layer = _layer_turn_s(hardware, model, layout, work, count, trains=trains)
    turn = layers * layer + hardware.overheads.micro_batch * (2 if trains else 1)
    if stages > 1:
        turn += _between_stages_s(hardware, model, layout, tokens) * (2 if trains else 1)
    head = float(arithmetic.head_s(hardware, model, work.responses / count / layout.context, layout.tensor))
    head *= 1 + hardware.overheads.backward if trains else 1
    head += _vocabulary_s(hardware, model, layout, tokens) * (2 if trains else 1)
    largest = min(model.max_tokens_per_rank, work.tokens) * count / work.tokens  # they are filled one by one
    path = count * (turn + head) + (stages - 1) * turn * max(largest, 1.0)
    busy = count * (turn + head / stages)
    update = update_s(hardware, model, layout) if trains else 0.0
    update += offload_s(hardware, model, layout, trains=trains) + hardware.overheads.score
    return Occupation(path + update, layout.size * (busy + update) / (path + update))


def _layer_turn_s(
    hardware: Hardware, model: RoleModel, layout: Layout, work: Workload, count: int, *, trains: bool
) -> float:
    """Return the seconds of a layer's share of one turn."""
    tensor, context = layout.tensor, layout.context
    tokens = work.tokens / count / context
    products = float(arithmetic.layer_s(hardware, model, tokens, tensor, layout.expert))
    products += float(arithmetic.elementwise_s(hardware, model, tokens, tensor))
    attention = float(arithmetic.attention_s(hardware, model, work.squares / count / context, work.row_tokens, tensor))
    message = tokens * model.shape.hidden * model.number_bytes
    place = group_place(layout, "tp", hardware.devices_per_node)
    sent = 2 * float(all_reduce_s(hardware, place, message)) + _experts_s(hardware, model, layout, message)
    forward = products + attention + sent + hardware.overheads.layer
    if not trains:
        return forward
    backward = hardware.overheads.backward * (products + attention) + sent + hardware.overheads.layer
    again = {Recompute.none: 0.0, Recompute.selective: attention, Recompute.full: forward}[model.recompute]
    return forward + backward + again


def _vocabulary_s(hardware: Hardware, model: RoleModel, layout: Layout, tokens: float) -> float:
    """Return the seconds of the messages of a vocabulary that tensor ranks share out: embeddings, maxima and sums."""
    place = group_place(layout, "tp", hardware.devices_per_node)
    message = tokens * model.shape.hidden * model.number_bytes
    return float(all_reduce_s(hardware, place, message) + 2 * all_reduce_s(hardware, place, 4 * tokens))


def _experts_s(hardware: Hardware, model: RoleModel, layout: Layout, message: float) -> float:
    """Return the seconds in which tokens go to their experts and back, if these are on several ranks."""
    if layout.expert == 1 or model.experts == 1:
        return 0.0
    across = layout.expert > hardware.devices_per_node
    sent = message * model.active_experts / layout.tensor * (layout.expert - 1) / layout.expert
    return 2 * float(send_s(hardware, across=across, size=sent))


def _between_stages_s(hardware: Hardware, model: RoleModel, layout: Layout, tokens: float) -> float:
    place = group_place(layout, "pp", hardware.devices_per_node)
    share = layout.tensor if model.sequence else 1
    size = tokens * model.shape.hidden * model.number_bytes / share
    return float(send_s(hardware, across=place.nodes > 1, size=size))


def update_s(hardware: Hardware, model: RoleModel, layout: Layout) -> float:
    """Return the seconds of adding gradients up and of the optimizer's own step.

    Experts that ranks share out are added up over the ranks that have the same ones.
    """
    others, experts = _numbers(model, layout)
    replicas = layout.data * layout.context
    seconds = _added_up_s(hardware, model, data_place(hardware, layout), others, replicas)
    if experts:
        alike = max(1, layout.tensor * replicas // layout.expert)
        within = min(alike, max(1, hardware.devices_per_node // layout.expert))
        seconds += _added_up_s(hardware, model, GroupPlace(within, ceil(alike / within)), experts, alike)
    return seconds + hardware.overheads.update


def _numbers(model: RoleModel, layout: Layout) -> tuple[float, float]:
    """Count the numbers of the fullest rank: those of experts that ranks share out, after all others."""
    experts = arithmetic.expert_parameters(model, layout.pipeline, layout.expert)
    sliced = experts * layout.expert / layout.tensor  # as they count among all
    return arithmetic.rank_parameters(model, layout.tensor, layout.pipeline) - sliced, experts


def _added_up_s(hardware: Hardware, model: RoleModel, place: GroupPlace, numbers: float, ranks: int) -> float:
    """Return the seconds of adding up gradients over ranks that have the same numbers, and of updating these."""
    state = numbers * STATE_BYTES
    if model.sharded_optimizer:
        reduced = float(all_gather_s(hardware, place, numbers * GRADIENT_BYTES))
        reduced += float(all_gather_s(hardware, place, numbers * model.number_bytes))
        state /= ranks
    else:
        reduced = float(all_reduce_s(hardware, place, numbers * GRADIENT_BYTES))
    return reduced + state / (hardware.memory_bytes_per_s * hardware.efficiency.updating)


def offload_s(hardware: Hardware, model: RoleModel, layout: Layout, *, trains: bool) -> float:
    """Return the seconds in which what waits in host memory comes before a call, and goes after it."""
    if hardware.device is Device.cpu:
        return 0.0
    others, experts = _numbers(model, layout)
    size = (others + experts) * model.number_bytes if model.offloads_weights else 0.0
    if trains and model.offloads_optimizer:
        replicas = layout.data * layout.context
        alike = max(1, layout.tensor * replicas // layout.expert)
        shares = (others / replicas, experts / alike) if model.sharded_optimizer else (others, experts)
        size += sum(shares) * MOMENT_BYTES
    return 2 * (hardware.host.latency_s + size / hardware.host.bytes_per_s) if size else 0.0


def data_place(hardware: Hardware, layout: Layout) -> GroupPlace:
    """Find where the ranks are that have the same weights."""
    place = group_place(layout, "dp", hardware.devices_per_node)
    if layout.context == 1:
        return place
    whole = layout.data * layout.context
    # Context ranks, which lie closer together, may be on several nodes themselves.
    within = min(whole, place.within * group_place(layout, "cp", hardware.devices_per_node).within)
    return GroupPlace(within, ceil(whole / within))
