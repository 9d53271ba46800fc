"""Training and generation on the same ranks: who ends up with what, and what that costs."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.models import LLAMA_70B
from hybridflow.models import ModelShape, table
from hybridflow.parallel.layout import Coordinate, Layout
from hybridflow.resharding.plan import Plan
from tests.resharding.plan.simulate import (
    SHAPE,
    SMOLLM2_360M,
    Ranks,
    any_sizes,
    arrives,
    generation_span,
    layouts,
    line,
    megatron_to_vllm,
    nests,
    numbers,
    shardings,
    stage_weights,
    wanted,
)

PAPER = Layout(4, 1, 2, (2, 1))  # p-t-d = 1-4-2, generation 1-2-2-2 (HybridFlow, section 5.3)


@st.composite
def shapes(draw: st.DrawFn) -> ModelShape:
    return replace(SHAPE, vocab=draw(st.integers(1, 600)), tied=draw(st.booleans()), qkv_bias=draw(st.booleans()))


def plan_of(shape: ModelShape, layout: Layout, method: str = "hybrid", limit: int = 10**9) -> Plan:
    """In numbers: one of them is a byte."""
    return megatron_to_vllm(shape, layout, itemsize=1, bucket_bytes=limit, method=method)


def mean(layout: Layout, received: dict[int, int], apart: dict[int, int]) -> Fraction:
    return Fraction(sum(received.values()) - sum(apart.values()), layout.size)


@given(shapes(), layouts(), st.sampled_from([1, 700, 10**9]))
@example(replace(SHAPE, tied=True), Layout(4, 4, 2, (2, 2)), 10**9)
def test_each_line_of_each_generation_shard_is_produced_once(shape: ModelShape, layout: Layout, limit: int) -> None:
    plan, held = plan_of(shape, layout, limit=limit), Ranks(shape, layout)
    assert sorted(rank for exchange in plan.exchanges for rank in exchange.takers) == list(range(layout.size))
    for exchange in plan.exchanges:
        assert exchange.givers == exchange.takers and all(plan.exchange(rank) is exchange for rank in exchange.takers)
        [at] = {replace(layout.generation_coordinates[rank], dp=0) for rank in exchange.takers}
        assert arrives(exchange, held) == wanted(shape, at, *layout.generation_sizes)


@given(shapes(), layouts(largest=16))
@example(replace(SHAPE, vocab=14), Layout(2, 2, generation=(2, 1)))
def test_what_does_not_travel_is_in_every_takers_training_shard(shape: ModelShape, layout: Layout) -> None:
    """Also where there is none of it, as of a vocabulary so small that the second half is padding."""
    train, _ = shardings(shape, layout)
    for exchange in plan_of(shape, layout).exchanges:
        for item in (item for item in exchange.program.items if not item.parts):
            assert all(train.region(item.weight, layout.coordinates[rank]) is not None for rank in exchange.takers)


@given(any_sizes(), st.sampled_from([1, 700, 10**9]))
@example((replace(SHAPE, heads=6, kv_heads=6, ffn=48, vocab=70), Layout(3, generation=(1, 1))), 10**9)
@example((SMOLLM2_360M, Layout(5, generation=(1, 1))), 2**20)
@example((replace(SHAPE, heads=6, kv_heads=6, ffn=48, vocab=151936), Layout(6, generation=(2, 1))), 10**9)
def test_sizes_need_not_be_powers_of_two(sizes: tuple[ModelShape, Layout], limit: int) -> None:
    """Each line of each shard once, by every method that does not refuse the vocabulary's cut."""
    shape, layout = sizes
    held, whole = Ranks(shape, layout), wanted(shape, Coordinate(), 1, 1)
    for exchange in plan_of(shape, layout, "full_gather", limit).exchanges:
        assert arrives(exchange, held) == whole
    if not nests(shape, layout):
        with pytest.raises(ValueError, match="the shards do not nest"):
            plan_of(shape, layout)
        return
    plan = plan_of(shape, layout, limit=limit)
    for exchange in plan.exchanges:
        at = layout.generation_coordinates[exchange.takers[0]]
        assert arrives(exchange, held) == wanted(shape, at, *layout.generation_sizes)
    assert not any(plan.redundant)


@given(shapes(), layouts(largest=16), st.sampled_from(["hybrid_v", "full_gather"]))
def test_the_compared_methods_produce_the_whole_model_once(shape: ModelShape, layout: Layout, method: str) -> None:
    """What a rank generates with is a slice of it."""
    layout = replace(layout, nested=method != "hybrid_v")
    held, whole = Ranks(shape, layout), wanted(shape, Coordinate(), 1, 1)
    for exchange in plan_of(shape, layout, method).exchanges:
        assert arrives(exchange, held) == whole


@given(layouts(), st.booleans())
def test_bytes_are_those_of_table_2(layout: Layout, tied: bool) -> None:
    """Payload received from other ranks, mean over the ranks; M is what tensor parallelism cuts."""
    shape, naive = replace(SHAPE, tied=tied), replace(layout, nested=False)
    n, d = layout.tensor * layout.pipeline, layout.data * layout.context
    replica = math.prod(layout.generation_sizes)
    m = numbers(shape, cut=True)
    hybrid = plan_of(shape, layout)
    assert mean(layout, hybrid.received, hybrid.outside_formula) == Fraction(n - replica, replica * n) * m
    for plan in (plan_of(shape, naive, "hybrid_v"), plan_of(shape, layout, "full_gather")):
        assert mean(layout, plan.received, plan.outside_formula) == Fraction(n - 1, n) * m
        assert plan.peak == numbers(shape)
    chat, everything = plan_of(shape, layout, "ds_chat"), numbers(shape)
    # ZeRO-3 cuts norms too.
    assert mean(layout, chat.received, chat.outside_formula) == Fraction(n * d - 1, n * d) * everything
    assert sum(chat.redundant) == everything == chat.peak


@given(shapes(), layouts())
def test_the_peak_is_a_shard_and_two_buckets(shape: ModelShape, layout: Layout) -> None:
    limit, (t_g, p_g) = 700, layout.generation_sizes
    plan, peaks = plan_of(shape, layout, limit=limit), []
    for exchange in plan.exchanges:
        at = layout.generation_coordinates[exchange.takers[0]]
        weights = stage_weights(shape, p_g, at.pp)
        shard = sum(line(w) * len(range(*generation_span(shape, w, t_g, at.tp))) for w in weights)
        sizes = [sum(p.elements for item in bucket.items for p in item.parts) for bucket in exchange.buckets]
        peaks.append(shard + 2 * max(sizes))
        for bucket, size in zip(exchange.buckets, sizes, strict=True):
            assert size <= limit or sum(bool(item.parts) for item in bucket.items) == 1
    assert plan.peak == max(peaks)


@given(layouts(nested=False))
@example(Layout(8, 1, 1, (2, 1), nested=False))
def test_naive_places_keep_what_generation_does_not_use(layout: Layout) -> None:
    """At most M / (tp), the paper's figure: a rank whose two shards have nothing in common."""
    plan, held = plan_of(SHAPE, layout, "hybrid_v"), Ranks(SHAPE, layout)
    widths = {weight.name: line(weight) for weight in table(SHAPE)}
    for rank, at in enumerate(layout.generation_coordinates):
        used = {name: set(range(*spans[0])) for name, spans in wanted(SHAPE, at, *layout.generation_sizes).items()}
        have = {name: set(range(*span)) for (name, _), span in held[rank].items()}
        assert plan.redundant[rank] == sum(widths[name] * len(have[name] - used.get(name, set())) for name in have)


@pytest.mark.parametrize("layout", [Layout(8, 4, 2, (4, 1)), Layout(8, 4, 2, (8, 2)), Layout(1, 4, 2, (1, 2))])
def test_ranks_give_equally_much_to_a_bucket_of_layers(layout: Layout) -> None:
    """So one all-gather does: stages take turns inside a bucket, and what all of a stage hold is shared out."""
    plan = megatron_to_vllm(LLAMA_70B, layout, itemsize=2, bucket_bytes=2**30)
    for exchange in plan.exchanges:
        layers = [b for b in exchange.buckets if all(isinstance(i.weight.place, int) for i in b.items)]
        assert len(layers) >= 3
        for bucket in layers:
            assert [bucket.sizes[i] for i in range(len(exchange.givers))] == [bucket.sizes[0]] * len(exchange.givers)
        assert exchange.messages <= len(layers) + 2 * len(exchange.givers)


@given(shapes(), layouts())
def test_nothing_is_redundant_and_the_same_sizes_move_nothing(shape: ModelShape, layout: Layout) -> None:
    assert not any(plan_of(shape, layout).redundant)
    same = plan_of(shape, replace(layout, generation=(layout.tensor, layout.pipeline)))
    assert not any(same.received.values()) and not any(same.sent.values())
    assert same.messages == 0 == same.largest_bucket


@given(shapes(), layouts())
def test_what_is_sent_is_received(shape: ModelShape, layout: Layout) -> None:
    plan = plan_of(shape, layout)
    assert sum(plan.sent.values()) == sum(plan.received.values())


@given(shapes(), layouts(largest=16))
def test_all_ranks_make_the_same_plan_and_others_another(shape: ModelShape, layout: Layout) -> None:
    digest = plan_of(shape, layout).digest
    assert digest == plan_of(replace(shape), replace(layout)).digest
    others = [
        plan_of(replace(shape, layers=16), layout),
        plan_of(replace(shape, hidden=16), layout),
        plan_of(shape, replace(layout, data=layout.data + 1)),
        plan_of(shape, layout, limit=500),
        plan_of(shape, layout, "full_gather"),
        megatron_to_vllm(shape, layout, itemsize=2, bucket_bytes=10**9),
    ]
    assert digest not in {plan.digest for plan in others}


def test_a_digest_says_who_gives() -> None:
    plan = plan_of(SHAPE, PAPER)
    first, *rest = plan.exchanges
    turned = replace(plan, exchanges=(replace(first, givers=first.givers[::-1]), *rest))
    assert plan.digest != turned.digest


def test_a_programs_digest_says_where_buckets_end() -> None:
    small, large = (plan_of(SHAPE, PAPER, limit=limit).exchanges[0].program for limit in (500, 10**9))
    assert list(small.items) == list(large.items) and small.digest != large.digest


def test_the_papers_example() -> None:
    """Eight ranks: a quarter of the model from the one neighbor; naive groups keep a quarter for nothing."""
    plan, m = plan_of(SHAPE, PAPER), numbers(SHAPE, cut=True)
    assert [e.takers for e in plan.exchanges] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert list(plan.received.values()) == list(plan.sent.values()) == [m // 4] * 8
    assert plan.messages == 1
    naive = plan_of(SHAPE, replace(PAPER, nested=False), "hybrid_v")
    assert [e.takers for e in naive.exchanges] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert naive.redundant == (0, m // 4, m // 4, 0) * 2
    assert list(naive.received.values()) == [m * 3 // 4] * 8


def test_the_copy_of_a_tied_embedding_is_apart() -> None:
    """The last of several stages in generation has it, and gets it from the last stage in training."""
    layout, shape = Layout(2, 2, generation=(1, 2)), replace(SHAPE, tied=True)
    plan, copy = plan_of(shape, layout), SHAPE.vocab * SHAPE.hidden
    assert plan.outside_formula == {0: 0, 1: 0, 2: copy // 2, 3: copy // 2}
    assert str(plan.exchange(3)).endswith("model.embed_tokens.weight: [0, 256) of 2, [256, 512) of 3")


@pytest.mark.parametrize(
    ("sizes", "layout", "said"),
    [
        ({"kv_heads": 2}, Layout(4), "tensor size 4 does not divide the 2 key/value heads"),
        ({"ffn": 30}, Layout(4), "tensor size 4 does not divide the 30 feed-forward rows"),
        ({"heads": 18, "kv_heads": 9}, Layout(4), "tensor size 4 does not divide the 18 attention heads"),
        ({"layers": 9}, Layout(1, 2), "pipeline size 2 does not divide the 9 layers"),
        (
            {"vocab": 100, "heads": 12, "kv_heads": 6, "ffn": 48},
            Layout(3),
            "tensor size 3 does not divide the 128 rows to which vLLM pads the vocabulary of 100",
        ),
        (
            {"vocab": 100, "heads": 12, "kv_heads": 6, "ffn": 48},
            Layout(6, generation=(2, 1)),
            "rows 0 to 64, and the ranks that are to give it those have 0 to 96 in training: the shards do not nest",
        ),
    ],
)
def test_what_does_not_fit_is_refused(sizes: dict[str, int], layout: Layout, said: str) -> None:
    with pytest.raises(ValueError, match=r"do not|does not") as refused:
        plan_of(replace(SHAPE, **sizes), layout)
    assert said in str(refused.value)


def test_other_paddings_do_not_matter_where_all_rows_meet() -> None:
    shape = replace(SHAPE, vocab=100, heads=12, kv_heads=6, ffn=48)
    layout = Layout(6, generation=(1, 1))
    found = arrives(plan_of(shape, layout).exchange(0), Ranks(shape, layout))
    assert found == wanted(shape, Coordinate(), 1, 1)
    naive = Layout(6, generation=(2, 1), nested=False)
    assert plan_of(shape, naive, "hybrid_v").received


@pytest.mark.parametrize(("method", "nested"), [("hybrid", False), ("hybrid_v", True), ("ds_chat", False)])
def test_a_method_on_the_wrong_places_is_refused(method: str, nested: bool) -> None:
    with pytest.raises(ValueError, match=f"method {method} on a layout whose places"):
        plan_of(SHAPE, Layout(2, nested=nested), method)
    with pytest.raises(ValueError, match=r"'naive' given, expected one of hybrid, hybrid_v, full_gather, ds_chat"):
        plan_of(SHAPE, Layout(2), "naive")


@pytest.mark.parametrize(("method", "programs"), [("hybrid", 8), ("ds_chat", 1)])
def test_a_thousand_ranks_share_programs(method: str, programs: int) -> None:
    """So that a plan of many ranks is as little work as that of one replica."""
    plan = megatron_to_vllm(LLAMA_70B, Layout(8, 8, 16, (4, 2)), itemsize=2, bucket_bytes=2**26, method=method)
    assert "1024 ranks" in str(plan)
    assert len({id(exchange.program) for exchange in plan.exchanges}) == programs
