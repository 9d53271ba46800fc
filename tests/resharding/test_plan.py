"""The plan of a transition: each element comes from exactly one rank that has it, and the bytes are the paper's."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.models import Shape, Weight, table
from hybridflow.parallel.layout import Layout, position
from hybridflow.resharding.plan import Plan, make_plan

ORDERS = ["tp-cp-ep-dp-pp", "cp-ep-dp-tp-pp", "pp-dp-tp-cp-ep"]
SHAPE = Shape(
    family="qwen2", layers=4, hidden=16, ffn=32, heads=16, kv_heads=8, head_dim=4, vocab=128, tied=False,
    qkv_bias=True, norm_eps=1e-6, rope_theta=1e4, max_positions=64,
)  # fmt: skip


def divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    tensor, pipeline, data = (draw(st.sampled_from(sizes)) for sizes in ([1, 2, 4, 8], [1, 2, 4], [1, 2]))
    view = draw(st.sampled_from(divisors(tensor))), draw(st.sampled_from(divisors(pipeline)))
    return Layout(tensor, pipeline, data, view, draw(st.sampled_from(ORDERS)))


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    return replace(SHAPE, vocab=draw(st.integers(1, 300)), tied=draw(st.booleans()), qkv_bias=draw(st.booleans()))


def held(weight: Weight, shape: Shape, layout: Layout, rank: int) -> range:
    """The indices of the split axis that a rank has in training."""
    at = layout.coordinates[rank]
    if weight.stage(shape.layers, layout.pipeline) != at.pp:
        return range(0)
    return range(*weight.span(layout.tensor, at.tp))


def wanted(weight: Weight, shape: Shape, layout: Layout, rank: int) -> range:
    """The indices that it must have in generation."""
    (t_g, p_g), at = layout.generation_sizes, layout.generation_coordinate(rank)
    if weight.stage(shape.layers, p_g) != at.pp:
        return range(0)
    return range(*weight.span(t_g, at.tp))


def received(plan: Plan, rank: int, *, cut: bool) -> int:
    """Elements from other ranks, of the weights that tensor parallelism cuts or of the others."""
    return sum(
        part.elements
        for bucket in plan.buckets
        for item in bucket.items
        for part in item.parts
        if part.owner != rank and (item.weight.axis is not None) == cut
    )


@given(shapes(), layouts(), st.sampled_from([1, 700, 10**9]))
def test_each_element_comes_from_exactly_one_owner_or_is_local(shape: Shape, layout: Layout, bucket: int) -> None:
    for rank in range(layout.size):
        plan = make_plan(shape, layout, rank, bucket)
        assert list(plan.ranks) == position(layout.micro_dp_groups(), rank)
        items = {item.weight.name: item for b in plan.buckets for item in b.items}
        assert sum(len(b.items) for b in plan.buckets) == len(items)
        for weight in table(shape, layout.tensor):
            need = list(wanted(weight, shape, layout, rank))
            if weight.name not in items:
                assert not need
                continue
            parts = items[weight.name].parts
            if not parts:
                assert list(held(weight, shape, layout, rank)) == need
                continue
            assert [i for part in parts for i in range(*part.span)] == need  # each once, in order
            for part in parts:
                assert part.owner in plan.ranks
                assert set(range(*part.span)) <= set(held(weight, shape, layout, part.owner))
                others = math.prod(weight.shape) // weight.shape[weight.axis or 0]
                assert part.elements == len(range(*part.span)) * others


@given(shapes(), layouts(), st.sampled_from([1, 700, 10**9]))
def test_a_group_has_one_plan_and_its_buckets_are_bounded(shape: Shape, layout: Layout, limit: int) -> None:
    for group in layout.micro_dp_groups():
        plans = {make_plan(shape, layout, rank, limit) for rank in group}
        assert len(plans) == 1
        [plan] = plans
        for bucket in plan.buckets:
            sizes = [item.elements for item in bucket.items]
            assert sum(sizes) <= limit or len([size for size in sizes if size]) == 1
            assert sum(sizes) == sum(bucket.size(rank) for rank in group)
        for rank in group:
            total = received(plan, rank, cut=True) + received(plan, rank, cut=False)
            assert plan.received(rank) == total


@given(layouts(), st.booleans())
def test_bytes_are_those_of_the_papers_formula(layout: Layout, tied: bool) -> None:
    """HybridFlow, Table 2: (tp - t_g·p_g) / (t_g·p_g·t·p) · M, the mean over the ranks of a training replica.

    M counts what is cut. Norms and the like are whole on every tensor rank and travel along a pipeline only.
    """
    shape = replace(SHAPE, vocab=512, tied=tied)  # 512 divides by every size, so nothing is padded
    t, p, (t_g, p_g) = layout.tensor, layout.pipeline, layout.generation_sizes
    whole = sum(math.prod(w.shape) for w in table(shape, t) if w.axis is not None)
    plans = {rank: make_plan(shape, layout, rank, 10**9) for rank in range(layout.size)}
    moved = sum(received(plan, rank, cut=True) for rank, plan in plans.items())
    assert Fraction(moved, layout.size) == Fraction(t * p - t_g * p_g, t_g * p_g * t * p) * whole
    if p == p_g:
        assert not any(received(plan, rank, cut=False) for rank, plan in plans.items())


@given(shapes(), layouts())
def test_the_same_sizes_move_nothing(shape: Shape, layout: Layout) -> None:
    same = replace(layout, generation=(layout.tensor, layout.pipeline))
    assert not any(make_plan(shape, same, rank, 10**9).received(rank) for rank in range(same.size))


def test_the_evidence_by_hand() -> None:
    """TP 4 to TP 2: every rank gets a quarter of the model from its one neighbour."""
    layout = Layout(4, generation=(2, 1))
    assert [make_plan(SHAPE, layout, rank, 10**9).ranks for rank in range(4)] == [(0, 1), (0, 1), (2, 3), (2, 3)]
    whole = sum(math.prod(w.shape) for w in table(SHAPE, 4) if w.axis is not None)
    assert [make_plan(SHAPE, layout, rank, 10**9).received(rank) * 4 for rank in range(4)] == [whole] * 4


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"kv_heads": 2}, "layers.0.self_attn.q_proj.weight has 2 key/value heads"),
        ({"ffn": 30}, "layers.0.mlp.gate_proj.weight has 30 rows"),
    ],
)
def test_what_does_not_divide_is_refused(sizes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match="do not divide over tensor size 4") as refused:
        make_plan(replace(SHAPE, **sizes), Layout(4, generation=(1, 1)), 0, 10**9)
    assert said in str(refused.value)


def test_what_does_not_nest_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a vocabulary of 100 is padded to 192 for tensor size 3 and to 128 for 1"):
        make_plan(replace(SHAPE, vocab=100, heads=6, kv_heads=3, ffn=48), Layout(3, generation=(1, 1)), 0, 10**9)
