"""From an actor's pool to a rollout pool: each rank is sent its slices, and the senders share the work."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.models import LLAMA_70B
from hybridflow.models import ModelShape
from hybridflow.parallel.layout import Layout
from hybridflow.resharding.plan import Plan
from tests.resharding.plan.simulate import (
    ORDERS,
    SHAPE,
    SMOLLM2_360M,
    Ranks,
    any_sizes,
    arrives,
    divisors,
    layouts,
    megatron_to_vllm_pools,
    numbers,
    wanted,
)


@st.composite
def rollouts(draw: st.DrawFn) -> Layout:
    """16 tensor ranks: two a key/value head."""
    sizes = st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([1, 2, 4]), st.integers(1, 5)
    return Layout(*map(draw, sizes), order=draw(st.sampled_from(ORDERS)))


@st.composite
def shapes(draw: st.DrawFn) -> ModelShape:
    return replace(SHAPE, vocab=draw(st.integers(1, 600)), tied=draw(st.booleans()))


def plan_of(shape: ModelShape, training: Layout, generation: Layout, limit: int = 10**9) -> Plan:
    return megatron_to_vllm_pools(shape, training, generation, itemsize=1, bucket_bytes=limit)


@given(shapes(), layouts(largest=32), rollouts(), st.sampled_from([700, 10**9]))
def test_each_line_arrives_once_and_no_other(shape: ModelShape, training: Layout, rollout: Layout, limit: int) -> None:
    plan, held = plan_of(shape, training, rollout, limit), Ranks(shape, training)
    assert [exchange.takers for exchange in plan.exchanges] == [(training.size + r,) for r in range(rollout.size)]
    for rank, at in enumerate(rollout.coordinates):
        taker = training.size + rank
        exchange = plan.exchange(taker)
        assert arrives(exchange, held) == wanted(shape, at, rollout.tensor, rollout.pipeline)
        assert set(exchange.givers) <= set(range(training.size))
        assert set(exchange.program.given) == set(range(len(exchange.givers))), "a giver that gives nothing"
        assert plan.received[taker] == exchange.program.elements
        assert all(bucket.size <= limit or len(bucket.items) == 1 for bucket in exchange.buckets)


@given(any_sizes(largest=24), st.integers(1, 3), st.data())
@example((SMOLLM2_360M, Layout(5, 2)), 3, None)
def test_sizes_need_not_be_powers_of_two(
    sizes: tuple[ModelShape, Layout], data: int, draws: st.DataObject | None
) -> None:
    """Nor need generation's divide training's."""
    shape, training = sizes
    padded = -(-shape.vocab // 64) * 64
    heads = [t for t in divisors(shape.kv_heads) if padded % t == 0 and shape.ffn % t == 0]
    tensor = draws.draw(st.sampled_from(heads)) if draws else 1
    pipeline = draws.draw(st.sampled_from(divisors(shape.layers))) if draws else 1
    rollout = Layout(tensor, pipeline, data)
    plan, held = plan_of(shape, training, rollout), Ranks(shape, training)
    for rank, at in enumerate(rollout.coordinates):
        assert arrives(plan.exchange(training.size + rank), held) == wanted(shape, at, tensor, pipeline)


@given(shapes(), layouts(largest=32), rollouts())
def test_the_replicas_share_the_sending_evenly(shape: ModelShape, training: Layout, rollout: Layout) -> None:
    """For each generation rank, a replica's part of a shard ends within a line of where it should."""
    plan = plan_of(shape, training, rollout)
    sent = dict.fromkeys(range(training.size), 0) | plan.sent
    groups: dict[tuple[int, int], list[int]] = {}
    for rank, at in enumerate(training.coordinates):
        groups.setdefault((at.pp, at.tp), []).append(sent[rank])
    line = max(shape.ffn, shape.heads * shape.head_dim, shape.hidden)
    for loads in groups.values():
        assert max(loads) - min(loads) <= 2 * line * rollout.size
    assert sum(plan.sent.values()) == sum(plan.received.values())


def test_of_a_70b_the_senders_are_even() -> None:
    """Three replicas feed four: none has more than a thousandth over its share, and nobody sends for all."""
    training, rollout = Layout(8, 2, 3), Layout(4, 1, 4)
    plan = megatron_to_vllm_pools(LLAMA_70B, training, rollout, itemsize=2, bucket_bytes=2**26)
    share = Fraction(4 * 2 * numbers(LLAMA_70B), training.size)
    assert len(plan.sent) == training.size
    assert max(plan.sent.values()) < share * Fraction(1001, 1000) + 4 * 2 * 8192 * 161
    assert max(plan.received.values()) < 2 * numbers(LLAMA_70B) / 4 * 1.001


def test_by_hand() -> None:
    """Two replicas of two halves, one rank that takes all: a quarter from each."""
    training, rollout = Layout(2, 1, 2), Layout(1)
    plan, m = plan_of(SHAPE, training, rollout), numbers(SHAPE, cut=True)
    [exchange] = plan.exchanges
    assert exchange.givers == (0, 1, 2, 3) and exchange.takers == (4,)
    cut: Counter[int] = Counter()
    for item in exchange.program.items:
        cut.update({part.giver: part.elements for part in item.parts if item.weight.axis is not None})
    assert max(abs(n - m / 4) for n in cut.values()) < 1000
    assert plan.messages == 4 and "rank 4 from ranks 0, 1, 2, 3" in str(exchange)


@pytest.mark.parametrize(
    ("training", "rollout", "senders"),
    [(Layout(2, 1, 4), Layout(2, 1, 2), 2), (Layout(2, 1, 2), Layout(2, 1, 4), 1), (Layout(4, 2, 2), Layout(2), 8)],
)
def test_a_rank_has_few_senders(training: Layout, rollout: Layout, senders: int) -> None:
    assert {len(exchange.givers) for exchange in plan_of(SHAPE, training, rollout).exchanges} == {senders}


def test_the_plan_has_a_name() -> None:
    training, rollout = Layout(2, 1, 2), Layout(4)
    digest = plan_of(SHAPE, training, rollout).digest
    assert digest == plan_of(replace(SHAPE), replace(training), rollout).digest
    assert digest != plan_of(SHAPE, training, replace(rollout, data=2)).digest
    assert digest != plan_of(SHAPE, replace(training, order=ORDERS[1]), rollout).digest


def test_a_thousand_ranks_are_planned_in_seconds() -> None:
    began = time.process_time()
    plan = megatron_to_vllm_pools(LLAMA_70B, Layout(8, 4, 16), Layout(8, 1, 64), itemsize=2, bucket_bytes=2**26)
    assert len(plan.digest) == 64 and str(plan).count("512 ranks") == 2
    assert time.process_time() - began < 5
