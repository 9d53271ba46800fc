"""A plan carried out on spans of lines: what ranks end up with, from the exchanges and the training shards alone.

A line is an index of a weight's split axis; its numbers always travel together.
"""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import assume
from hypothesis import strategies as st

from hybridflow.engines.base import make_shardings
from hybridflow.engines.sharding import Shardings
from hybridflow.models import Along, ModelShape, Weight, table
from hybridflow.models.weight_table import EMBEDDING, LAST
from hybridflow.parallel.layout import Coordinate, Layout
from hybridflow.resharding.plan import Exchange, Plan, make_plan, make_pool_plan

Span = tuple[int, int]
ORDERS = ["tp-cp-ep-dp-pp", "cp-ep-dp-tp-pp", "pp-dp-tp-cp-ep"]
SHAPE = ModelShape(
    family="qwen2", layers=8, hidden=12, ffn=32, heads=16, kv_heads=8, head_dim=4, vocab=512, tied=False,
    qkv_bias=True, norm_eps=1e-6, rope_theta=1e4, max_positions=64,
)  # fmt: skip

SMOLLM2_360M = ModelShape(
    family="llama", layers=32, hidden=960, ffn=2560, heads=15, kv_heads=5, head_dim=64, vocab=49152, tied=True,
    qkv_bias=False, norm_eps=1e-5, rope_theta=1e5, max_positions=8192,
)  # fmt: skip


def shardings(shape: ModelShape, training: Layout, generation: Layout | None = None) -> Shardings:
    """Megatron's and vLLM's; `generation`: of a pool of its own."""
    return make_shardings("megatron", "vllm", shape, training, generation or training)


def megatron_to_vllm(
    shape: ModelShape, layout: Layout, *, itemsize: int, bucket_bytes: int, method: str = "hybrid"
) -> Plan:
    """`make_plan` for these two engines."""
    return make_plan(shardings(shape, layout), layout, itemsize=itemsize, bucket_bytes=bucket_bytes, method=method)


def megatron_to_vllm_pools(
    shape: ModelShape, training: Layout, generation: Layout, *, itemsize: int, bucket_bytes: int
) -> Plan:
    """`make_pool_plan` for these two engines."""
    both = shardings(shape, training, generation)
    return make_pool_plan(both, training, generation, itemsize=itemsize, bucket_bytes=bucket_bytes)


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


VOCABULARIES = (97, 49152, 50257, 151936)  # padded to 128 and 50304; the others as they are


@st.composite
def any_sizes(draw: st.DrawFn, *, largest: int = 48) -> tuple[ModelShape, Layout]:
    """A layout of any sizes, powers of two or not, and a model that both engines can cut so."""
    tensor, pipeline = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    data = draw(st.integers(1, max(1, min(3, largest // (tensor * pipeline)))))
    view = draw(st.sampled_from(divisors(tensor))), draw(st.sampled_from(divisors(pipeline)))
    kv_heads = tensor * draw(st.integers(1, 2))
    shape = replace(
        SHAPE, layers=pipeline * draw(st.integers(1, 2)), kv_heads=kv_heads, heads=kv_heads * draw(st.integers(1, 3)),
        ffn=tensor * draw(st.integers(1, 5)), head_dim=2 * draw(st.integers(1, 3)), tied=draw(st.booleans()),
        vocab=draw(st.sampled_from(VOCABULARIES) | st.integers(1, 2000)),
    )  # fmt: skip
    assume(-(-shape.vocab // 64) * 64 % view[0] == 0)  # else vLLM does not cut it so
    return shape, Layout(tensor, pipeline, data, view, draw(st.sampled_from(ORDERS)))


def nests(shape: ModelShape, layout: Layout) -> bool:
    """Whether each generation shard of the vocabulary ends where a training shard does."""
    t, t_g = layout.tensor, layout.generation_sizes[0]
    here, there = -(-shape.vocab // math.lcm(64, t)) * math.lcm(64, t), -(-shape.vocab // 64) * 64
    return all(min(here // t_g * i, shape.vocab) == min(there // t_g * i, shape.vocab) for i in range(t_g))


def line(weight: Weight) -> int:
    """Numbers of a line."""
    return math.prod(weight.shape) // weight.shape[weight.axis or 0]


def stage_weights(shape: ModelShape, pipeline: int, stage: int) -> list[Weight]:
    """The weights that a stage has, in either engine; with tied embeddings the last of several has a copy."""
    found = [w for w in table(shape) if w.stage(shape.layers, pipeline) == stage]
    tied = shape.tied and pipeline > 1 and stage == pipeline - 1
    return found + [replace(w, place=LAST) for w in table(shape) if tied and w.name == EMBEDDING]


def training_span(shape: ModelShape, weight: Weight, tensor: int, tp: int) -> tuple[int, int]:
    """The lines that Megatron has on a tensor rank: its rules, restated."""
    if weight.axis is None:
        return 0, weight.shape[0]
    whole = weight.shape[weight.axis]
    step = math.lcm(64, tensor)
    share = -(-whole // step) * step // tensor if weight.along is Along.vocabulary else whole // tensor
    return min(tp * share, whole), min((tp + 1) * share, whole)


def generation_span(shape: ModelShape, weight: Weight, tensor: int, tp: int) -> tuple[int, int]:
    """The lines that vLLM has on a tensor rank: its rules, restated."""
    if weight.axis is None:
        return 0, weight.shape[0]
    whole = weight.shape[weight.axis]
    if weight.along is Along.vocabulary:
        share = -(-whole // 64) * 64 // tensor
        return min(tp * share, whole), min((tp + 1) * share, whole)
    if (".k_proj." in weight.name or ".v_proj." in weight.name) and tensor > shape.kv_heads:
        head = tp // (tensor // shape.kv_heads)
        return head * shape.head_dim, (head + 1) * shape.head_dim
    return whole // tensor * tp, whole // tensor * (tp + 1)


class Ranks:
    """What the ranks of a training layout hold: [a, b) of each weight, by name and place."""

    def __init__(self, shape: ModelShape, layout: Layout) -> None:
        self.shape, self.layout = shape, layout
        self._made: dict[tuple[int, int], dict[tuple[str, int | str], Span]] = {}

    def __getitem__(self, rank: int) -> dict[tuple[str, int | str], Span]:
        at, tensor = self.layout.coordinates[rank], self.layout.tensor
        if (at.pp, at.tp) not in self._made:
            mine = stage_weights(self.shape, self.layout.pipeline, at.pp)
            spans = {(w.name, w.place): training_span(self.shape, w, tensor, at.tp) for w in mine}
            self._made[at.pp, at.tp] = spans
        return self._made[at.pp, at.tp]


def arrives(exchange: Exchange, held: Ranks) -> dict[str, list[Span]]:
    """The lines of each weight that every taker ends up with: one [a, b), if each line is there once and in order.

    Asserts that givers have what they give, and takers what nobody gives.
    """
    found: dict[str, list[Span]] = {}
    for item in exchange.program.items:
        weight, key = item.weight, (item.weight.name, item.weight.place)
        assert weight.name not in found, "a weight twice"
        width = line(weight)
        spans = found[weight.name] = []
        if not item.parts and item.elements:
            [own] = {held[taker][key] for taker in exchange.takers}
            spans.append(own)
        for giver, (a, b), elements in item.parts:
            has = held[exchange.givers[giver]][key]
            assert has[0] <= a < b <= has[1], f"{weight.name} is not there"
            assert elements == (b - a) * width
            if spans and spans[-1][1] == a:
                spans[-1] = spans[-1][0], b
            else:
                spans.append((a, b))
        assert item.elements == sum(b - a for a, b in spans) * width
    return found


def wanted(shape: ModelShape, at: Coordinate, tensor: int, pipeline: int) -> dict[str, list[Span]]:
    """A generation shard."""
    weights = stage_weights(shape, pipeline, at.pp)
    spans = {w.name: generation_span(shape, w, tensor, at.tp) for w in weights}
    return {name: [span] if span[0] < span[1] else [] for name, span in spans.items()}


def numbers(shape: ModelShape, *, cut: bool | None = None) -> int:
    """Numbers in a model: of the weights that are cut, of the others, or of all."""
    return sum(math.prod(w.shape) for w in table(shape) if cut is None or (w.axis is not None) == cut)
