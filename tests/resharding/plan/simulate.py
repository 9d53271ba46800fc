"""A plan carried out on numbers: what each rank ends up with, found from the exchanges and the training shards alone.

A line (an index of a weight's split axis) stands for all its numbers, which always travel together.
"""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import strategies as st

from hybridflow.models import Shape, Weight, table
from hybridflow.models.folder import tied_copy
from hybridflow.parallel.layout import Coordinate, Layout
from hybridflow.resharding.plan import Exchange

ORDERS = ["tp-cp-ep-dp-pp", "cp-ep-dp-tp-pp", "pp-dp-tp-cp-ep"]
SHAPE = Shape(
    family="qwen2", layers=8, hidden=12, ffn=32, heads=16, kv_heads=8, head_dim=4, vocab=512, tied=False,
    qkv_bias=True, norm_eps=1e-6, rope_theta=1e4, max_positions=64,
)  # fmt: skip
LLAMA_70B = Shape(
    family="llama", layers=80, hidden=8192, ffn=28672, heads=64, kv_heads=8, head_dim=128, vocab=128256, tied=False,
    qkv_bias=False, norm_eps=1e-5, rope_theta=5e5, max_positions=8192,
)  # fmt: skip


def divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]


@st.composite
def layouts(draw: st.DrawFn, *, largest: int = 64, nested: bool = True) -> Layout:
    """Up to `largest` ranks, any view of them in generation, any order."""
    sizes = [1, 2, 4, 8]
    tensor = draw(st.sampled_from(sizes))
    pipeline = draw(st.sampled_from([p for p in sizes if tensor * p <= largest]))
    data, context = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 1, 2]))
    if tensor * pipeline * data * context > largest:
        data = context = 1
    view = draw(st.sampled_from(divisors(tensor))), draw(st.sampled_from(divisors(pipeline)))
    return Layout(tensor, pipeline, data, view, draw(st.sampled_from(ORDERS)), context, nested)


def generation_weights(shape: Shape, pipeline: int, stage: int) -> list[Weight]:
    """The weights that vLLM has on a stage."""
    found = [w for w in table(shape) if w.stage(shape.layers, pipeline) == stage]
    return found + tied_copy(shape, 1, pipeline, stage)


def generation_span(shape: Shape, weight: Weight, tensor: int, tp: int) -> tuple[int, int]:
    """The lines that vLLM has on a tensor rank: its rules, restated."""
    if weight.axis is None:
        return 0, weight.shape[0]
    whole = weight.shape[weight.axis]
    if weight.padded is not None:
        share = -(-whole // 64) * 64 // tensor
        return min(tp * share, whole), min((tp + 1) * share, whole)
    if (".k_proj." in weight.name or ".v_proj." in weight.name) and tensor > shape.kv_heads:
        head = tp // (tensor // shape.kv_heads)
        return head * shape.head_dim, (head + 1) * shape.head_dim
    return whole // tensor * tp, whole // tensor * (tp + 1)


def holds(shape: Shape, layout: Layout, rank: int) -> dict[tuple[str, str], set[int]]:
    """The lines of each weight that a rank has in training, by name and parameter."""
    at, weights = layout.coordinates[rank], table(shape, layout.tensor)
    mine = [w for w in weights if w.stage(shape.layers, layout.pipeline) == at.pp]
    mine += tied_copy(shape, layout.tensor, layout.pipeline, at.pp)
    return {(w.name, w.param): set(range(*w.span(layout.tensor, at.tp))) for w in mine}


def arrives(
    exchange: Exchange, taker: int, shape: Shape, training: Layout, held: dict[tuple[int, int], dict]
) -> dict[str, Counter[int]]:
    """How often each line of each weight is produced at a taker. Asserts that givers have what they give.

    Args:
        held: what training ranks hold, by (pp, tp); filled as it goes.
    """

    def have(rank: int) -> dict[tuple[str, str], set[int]]:
        at = training.coordinates[rank]
        if (at.pp, at.tp) not in held:
            held[at.pp, at.tp] = holds(shape, training, rank)
        return held[at.pp, at.tp]

    found: dict[str, Counter[int]] = {}
    for bucket in exchange.buckets:
        for item in bucket.items:
            weight, key = item.weight, (item.weight.name, item.weight.param)
            assert weight.name not in found, "a weight twice"
            lines = found[weight.name] = Counter()
            if not item.parts:
                lines.update(have(taker)[key])
            for giver, (a, b), elements in item.parts:
                assert set(range(a, b)) <= have(exchange.givers[giver])[key], f"{weight.name} is not there"
                assert elements == (b - a) * math.prod(weight.shape) // weight.shape[weight.axis or 0] > 0
                assert not lines or max(lines) < a, "parts are in order"
                lines.update(range(a, b))
            assert item.elements == sum(lines.values()) * math.prod(weight.shape) // weight.shape[weight.axis or 0]
    return found


def wanted(shape: Shape, at: Coordinate, tensor: int, pipeline: int) -> dict[str, Counter[int]]:
    """Each line of a generation shard, once."""
    weights = generation_weights(shape, pipeline, at.pp)
    return {w.name: Counter(range(*generation_span(shape, w, tensor, at.tp))) for w in weights}


def numbers(shape: Shape, *, cut: bool | None = None) -> int:
    """Numbers in a model: of the weights that are cut, of the others, or of all."""
    return sum(math.prod(w.shape) for w in table(shape) if cut is None or (w.axis is not None) == cut)
