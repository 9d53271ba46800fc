"""What single calls cost: by hand where hands can, and that it goes where physics does."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.batch.row_trees import RowTrees
from hybridflow.config.schema import Device, DType, Recompute, Resharding
from hybridflow.parallel.layout import Layout
from hybridflow.planning.call_costs import Simulators
from hybridflow.planning.collectives import GroupPlace, all_gather_s, all_reduce_s, group_place
from hybridflow.planning.generation_cost import replica_of
from hybridflow.planning.hardware import Curve, Efficiency, Hardware, Link, Overheads
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.model_arithmetic import attention_s, layer_s, parameters, product_s
from hybridflow.planning.run_spec import FlowCall, Work
from hybridflow.planning.slot_memory import role_bytes
from hybridflow.planning.step_bytes import colocated_numbers, sent_numbers
from hybridflow.planning.sync_cost import moved_bytes, sync_seconds
from hybridflow.planning.training_cost import data_place, micro_batches
from hybridflow.planning.workload import Workload, expected_workload, fullest, ordered_lengths
from tests.planning.specs import LENGTHS, POLICY, build_spec

NOTHING = Overheads(**dict.fromkeys(Overheads.__dataclass_fields__, 0.0) | {"backward": 2.0})
FULL = Efficiency(Curve((1.0,), (1.0,)), Curve((1.0,), (1.0,)), 1.0, 1.0, Curve((1.0,), (1.0,)))
IDEAL = Hardware(
    "ideal",
    "made up",
    Device.gpu,
    devices_per_node=8,
    memory_bytes=1e12,
    memory_bytes_per_s=1e12,
    flops={DType.bfloat16: 1e14},
    within=Link(0.0, 1e11),
    across=Link(0.0, 1e10),
    efficiency=FULL,
    overheads=NOTHING,
)
H100 = read_hardware("h100_80g_8x")
GENERATE = FlowCall("actor", "generate_sequences", Work.generate, True, 64)
SCORE = FlowCall("reference", "compute_ref_log_prob", Work.score, True, 64)
TRAIN = FlowCall("actor", "update_actor", Work.train, False, 64)
CALLS = (GENERATE, SCORE, TRAIN)


def mean_s(call: FlowCall, layout: Layout, hardware: Hardware = H100, **changes: object) -> float:
    model = replace(POLICY, **changes)  # type: ignore[arg-type]
    return Simulators(hardware).call_s(call, model, layout, build_spec()).mean


def test_a_product_is_bound_by_arithmetic_or_by_memory() -> None:
    assert product_s(IDEAL, POLICY, 4096, 4096, 4096) == pytest.approx(2 * 4096**3 / 1e14)
    assert product_s(IDEAL, POLICY, 1, 4096, 4096) == pytest.approx(2 * (4096**2 + 2 * 4096) / 1e12)


def test_an_array_of_products_has_the_times_of_each() -> None:
    rows = np.array([1.0, 7.0, 300.0, 20000.0])
    each = [float(layer_s(H100, POLICY, m, 2)) for m in rows.tolist()]
    assert layer_s(H100, POLICY, rows, 2) == pytest.approx(each)


def test_attention_is_half_of_a_square() -> None:
    # Two products, each of half of 1000 × 1000 by the 64 numbers of each of 32 heads.
    assert attention_s(IDEAL, POLICY, 1000**2, 1000, 1) == pytest.approx(2 * 2 * 32 * 64 * 1000**2 / 2 / 1e14)


def test_a_ring_moves_the_message_twice_and_a_gather_once() -> None:
    assert all_reduce_s(IDEAL, GroupPlace(4, 1), 1e9) == pytest.approx(2 * 3 / 4 * 1e9 / 1e11)
    assert all_gather_s(IDEAL, GroupPlace(4, 1), 1e9) == pytest.approx(3 / 4 * 1e9 / 1e11)
    assert all_reduce_s(IDEAL, GroupPlace(1, 1), 1e9) == 0


def test_across_nodes_each_rank_sends_its_share() -> None:
    inside = 2 * 7 / 8 * 1e9 / 1e11
    assert all_reduce_s(IDEAL, GroupPlace(8, 2), 1e9) == pytest.approx(inside + 2 * 1 / 2 * 1e9 / 8 / 1e10)


@pytest.mark.parametrize(
    ("layout", "axis", "place"),
    [
        (Layout(8, 1, 4), "tp", GroupPlace(8, 1)),
        (Layout(8, 1, 4), "dp", GroupPlace(1, 4)),
        (Layout(2, 1, 16), "dp", GroupPlace(4, 4)),
        (Layout(2, 4, 4), "pp", GroupPlace(1, 4)),
        (Layout(16, 1, 1), "tp", GroupPlace(8, 2)),
        (Layout(2, 1, 16, order="dp-tp-cp-ep-pp"), "tp", GroupPlace(1, 2)),
    ],
)
def test_a_group_is_where_the_rank_order_has_it(layout: Layout, axis: str, place: GroupPlace) -> None:
    assert group_place(layout, axis, 8) == place
    nodes = [{rank // 8 for rank in group} for group in layout.groups(axis)]
    assert len(nodes[0]) == place.nodes


@pytest.mark.parametrize("layout", [Layout(2, 1, 4, context=2), Layout(2, 1, 8, context=4), Layout(8, 1, 2, context=2)])
def test_gradients_cross_as_many_nodes_as_ranks_with_the_same_weights_are_on(layout: Layout) -> None:
    assert data_place(IDEAL, layout).nodes == len({rank // 8 for rank in layout.groups("dp", "cp")[0]})


@settings(max_examples=30)
@given(call=st.sampled_from((GENERATE, SCORE)), exponent=st.integers(0, 5))
def test_twice_the_replicas_are_never_slower(call: FlowCall, exponent: int) -> None:
    assert mean_s(call, Layout(data=2 ** (exponent + 1))) <= mean_s(call, Layout(data=2**exponent)) * (1 + 1e-9)


@settings(max_examples=30)
@given(call=st.sampled_from(CALLS), rows=st.integers(1, 200), more=st.integers(1, 200), data=st.integers(1, 4))
def test_more_rows_are_never_faster(call: FlowCall, rows: int, more: int, data: int) -> None:
    few, many = (mean_s(replace(call, rows=count), Layout(data=data)) for count in (rows, rows + more))
    # The expected maximum of lengths is that of fewer quantiles: it may be off by a part of one.
    assert few <= many * 1.02


@settings(max_examples=20)
@given(tensor=st.sampled_from((2, 4, 8)), call=st.sampled_from(CALLS))
def test_where_links_cost_nothing_tensor_ranks_share_the_work_out(tensor: int, call: FlowCall) -> None:
    free = replace(IDEAL, within=Link(0.0, inf))
    alone, shared = (mean_s(call, Layout(ranks), free) for ranks in (1, tensor))
    assert alone / tensor * 0.99 <= shared <= alone / tensor * 1.35  # keys, values and few logits are less than all


def test_a_call_without_rows_costs_nothing() -> None:
    assert [mean_s(replace(call, rows=0), Layout(data=2)) for call in CALLS] == [0.0, 0.0, 0.0]


def test_training_is_three_times_the_forward_and_recomputation_is_a_fourth() -> None:
    bare = replace(IDEAL, within=Link(0.0, inf), memory_bytes_per_s=inf)
    forward = mean_s(SCORE, Layout(), bare)
    assert mean_s(TRAIN, Layout(), bare) == pytest.approx(3 * forward)
    whole = mean_s(TRAIN, Layout(), bare, recompute=Recompute.full)
    assert 3.5 * forward < whole < 4 * forward  # the output layer is not computed again


def test_a_pipeline_has_bubbles_by_its_micro_batches() -> None:
    bare = replace(IDEAL, within=Link(0.0, inf), memory_bytes_per_s=inf)
    one = mean_s(SCORE, Layout(), bare, max_tokens_per_rank=10**9)
    assert mean_s(SCORE, Layout(1, 4), bare, max_tokens_per_rank=10**9) == pytest.approx(one, rel=0.01)
    # Some 24 micro-batches pass four stages in 27 turns, of a quarter each or less; the last has the output layer too.
    assert 0.25 * one < mean_s(SCORE, Layout(1, 4), bare, max_tokens_per_rank=2048) < 0.45 * one


def test_what_waits_in_host_memory_comes_and_goes_by_its_link() -> None:
    slow = replace(IDEAL, host=Link(0.0, 1e9))
    stays, goes = (mean_s(SCORE, Layout(2), slow, offloads_weights=offloads) for offloads in (False, True))
    assert goes - stays == pytest.approx(2 * 2 * parameters(POLICY) / 2 / 1e9)
    both = {"offloads_weights": True, "offloads_optimizer": True}
    moved = mean_s(TRAIN, Layout(data=4), slow, **both) - mean_s(TRAIN, Layout(data=4), slow)
    assert moved == pytest.approx(2 * (2 + 12 / 4) * parameters(POLICY) / 1e9)
    on_cpu = replace(slow, device=Device.cpu)
    assert mean_s(TRAIN, Layout(), on_cpu, **both) == mean_s(TRAIN, Layout(), on_cpu)


def test_ranks_share_cores() -> None:
    shared = replace(IDEAL, cores=2, devices_per_node=64)
    alone = replace(IDEAL, devices_per_node=64)
    ratio = [
        mean_s(SCORE, Layout(data=data), shared) / mean_s(SCORE, Layout(data=data), alone) for data in (1, 2, 4, 8)
    ]
    assert ratio == pytest.approx([1, 1, 2, 4])


# Generation


def test_rows_of_one_length_take_as_many_steps() -> None:
    spec = build_spec(responses=Lengths((500.0,)))
    replica = replica_of(IDEAL, POLICY, Layout())
    steps = replica.decode_s(np.full(16, 500.0), 1.0, 100.0, places=16)
    assert steps == pytest.approx(500 * float(replica.step_s(16, 100 + 250)), rel=1e-6)
    assert replica.decode_s(np.full(64, 500.0), 1.0, 100.0, places=16) == pytest.approx(4 * steps)
    assert Simulators(IDEAL).call_s(GENERATE, POLICY, Layout(), spec).mean >= steps


def test_a_decode_step_reads_all_weights_for_one_row_too() -> None:
    step = float(replica_of(IDEAL, POLICY, Layout()).step_s(1, 0))
    assert step == pytest.approx(2 * parameters(POLICY) / 1e12, rel=0.02)


def test_one_long_row_holds_a_replica_up() -> None:
    replica = replica_of(H100, POLICY, Layout())
    short = np.full(32, 100.0)
    tail = np.append(1000.0, short[1:])
    assert replica.decode_s(tail, 1.0, 100.0, 32) > 5 * replica.decode_s(short, 1.0, 100.0, 32)


@settings(max_examples=30)
@given(seed=st.integers(0, 99), rows=st.integers(2, 120), places=st.integers(1, 64))
def test_decoding_is_what_a_simulation_of_slots_takes(seed: int, rows: int, places: int) -> None:
    """Rows in their places, one by one, with the mean context in place of each row's own."""
    replica = replica_of(H100, POLICY, Layout())
    lengths = np.random.default_rng(seed).lognormal(np.log(300), 0.6, rows).clip(1, 2000)
    ends = np.zeros(min(places, rows))
    seconds = tokens = 0.0
    left = [*lengths[: len(ends)]]
    queue = [*lengths[len(ends) :]]
    while left:
        step = min(left)
        seconds += step * float(replica.step_s(len(left), 100.0 + lengths.mean() / 2))
        tokens += step * len(left)
        left = [row - step for row in left if row > step] + [queue.pop(0) for row in left if row <= step and queue]
    assert tokens == pytest.approx(lengths.sum())
    assert replica.decode_s(lengths, 1.0, 100.0, places) == pytest.approx(seconds, rel=0.1)


def test_the_cache_says_how_many_rows_a_replica_has() -> None:
    spec = build_spec()
    replica = replica_of(H100, POLICY, Layout())
    row = 2 * 16 * 8 * 64 * 2 * (150 + LENGTHS.mean)
    assert replica.places(replace(spec, kv_cache_bytes=10.5 * row)) == 10
    assert replica.places(replace(spec, kv_cache_bytes=1.0)) == 1
    assert replica.places(spec) == spec.max_concurrent_rows


def test_the_longest_of_many_rows_is_longer_than_that_of_few() -> None:
    longest = [ordered_lengths(LENGTHS, 8, of).max() for of in (8, 64, 4096)]
    assert longest == sorted(longest)
    assert longest[-1] == pytest.approx(LENGTHS.max, rel=0.01)


# Shares of rows


def test_rows_shared_out_by_number_have_a_fullest_rank() -> None:
    spec = build_spec()
    even = expected_workload(replace(SCORE, rows=256), spec, 8)
    uneven = expected_workload(replace(SCORE, rows=256, balanced=False), spec, 8)
    drawn = np.random.default_rng(1)
    sums = [spec.response_tokens.drawn(256, int(drawn.integers(10**9))).reshape(8, 32).sum(1) for _ in range(300)]
    assert even.tokens == pytest.approx(32 * (150 + LENGTHS.mean))
    assert uneven.tokens == pytest.approx(np.max(sums, axis=1).mean() + 32 * 150, rel=0.02)
    assert fullest(1) == 0


@settings(max_examples=30)
@given(seed=st.integers(0, 99), rows=st.integers(1, 200), budget=st.integers(200, 8000))
def test_micro_batches_are_about_as_many_as_the_engine_packs(seed: int, rows: int, budget: int) -> None:
    lengths = np.sort(np.random.default_rng(seed).lognormal(np.log(300), 0.6, rows).clip(10, 1000))[::-1]
    packed, room = 0, 0.0
    for length in lengths.tolist():  # as engines.megatron.micro_batches does: longest first, a new one where none fits
        packed += length > room
        room = (budget if length > room else room) - length
    found = micro_batches(Workload(float(rows), float(lengths.sum()), float((lengths**2).sum()), 0.0), budget)
    assert found == pytest.approx(packed, rel=0.3, abs=2.5)


# Weight sync


def test_a_sync_moves_what_the_paper_says() -> None:
    size = 2 * parameters(POLICY)
    moved = {
        (4, 4): 0.0,
        (4, 1): size * 3 / 4,
        (4, 2): size / 2 * 2 / 4,
    }
    for (tensor, generation), expected in moved.items():
        layout = Layout(tensor, 1, 2, generation=(generation, 1))
        assert sync_seconds(IDEAL, POLICY, layout, None) == pytest.approx(expected / 1e11)
    flat = Layout(4, 1, 2, generation=(2, 1), nested=False)
    assert sync_seconds(IDEAL, POLICY, flat, None) == pytest.approx(size * 3 / 4 / 1e11)
    assert sync_seconds(IDEAL, POLICY, Layout(4), Layout(2, 1, 2)) == pytest.approx(size / 2 / 1e11)


@pytest.mark.parametrize("method", Resharding)
@pytest.mark.parametrize("layout", [Layout(4, 1, 2, generation=(2, 1)), Layout(2, 2, 3, generation=(1, 1)), Layout(2)])
def test_a_sync_moves_the_bytes_of_its_plan(layout: Layout, method: Resharding) -> None:
    """Of what tensor ranks cut; norms are a ten-thousandth."""
    made = replace(layout, nested=method is not Resharding.hybrid_v)
    whole = 2 * colocated_numbers("vllm", POLICY.shape, made, method)
    assert moved_bytes(POLICY, made, None, method) * made.size == pytest.approx(whole, rel=2e-3)


def test_a_pool_of_its_own_is_sent_what_its_ranks_have() -> None:
    generation = Layout(2, 1, 3)
    assert moved_bytes(POLICY, Layout(8), generation) * 6 == pytest.approx(
        2 * sent_numbers("vllm", POLICY.shape, generation), rel=2e-3
    )
    assert moved_bytes(POLICY, Layout(2), generation) * 2 == moved_bytes(POLICY, Layout(8), generation) * 6


def test_what_was_asked_of_one_run_is_not_answered_of_another() -> None:
    simulators = Simulators(H100)
    short, long = (build_spec(responses=Lengths((tokens,))) for tokens in (100.0, 900.0))
    found = [simulators.call_s(GENERATE, POLICY, Layout(), spec).mean for spec in (short, long, build_spec(), short)]
    assert found[1] > found[2] > found[0] == found[3]
    spread = simulators.call_s(GENERATE, POLICY, Layout(), build_spec())
    assert spread.low < spread.mean < spread.high


# Prompts that rows share


@pytest.mark.parametrize("budget", [700, 1500, 4096, 10**6])
@pytest.mark.parametrize(("samples", "data"), [(4, 1), (8, 2), (16, 4), (8, 64)])
def test_rows_of_a_prompt_are_as_many_tokens_and_micro_batches_as_the_engine_packs(
    samples: int, data: int, budget: int
) -> None:
    spec = replace(build_spec(), samples=samples, prompts=256 // samples, shares_prompts=True)
    own = 256 // data
    work = expected_workload(replace(SCORE, rows=256), spec, data, budget=budget)
    prompt = int(spec.prompt_tokens.mean)
    responses = np.quantile(spec.response_tokens.quantiles, (np.arange(own) + 0.5) / own)
    lengths = prompt + np.random.default_rng(1).permutation(responses).astype(int)
    group = min(samples, own)
    first = np.arange(own) // group * group
    prefixes = np.where((np.arange(own) == first)[:, None], [[-1, 0]], np.stack([first, np.full(own, prompt)], axis=1))
    trees = RowTrees.of(lengths.astype(np.int64), prefixes)
    packed = trees.micro_batches(budget)
    assert work.tokens == pytest.approx(sum(map(trees.unique_tokens, packed)), rel=0.15)
    assert micro_batches(work, budget) == pytest.approx(len(packed), rel=0.3, abs=1.5)


def test_what_rows_share_costs_less_in_seconds_and_in_bytes() -> None:
    alone = replace(build_spec(), samples=8, prompts=32)
    shared = replace(alone, shares_prompts=True)
    call = replace(SCORE, rows=256)
    seconds = [Simulators(H100).call_s(call, POLICY, Layout(), spec).mean for spec in (alone, shared)]
    assert seconds[1] < seconds[0]
    peaks = [
        role_bytes(replace(POLICY, max_tokens_per_rank=10**6), Layout(), spec, H100).peak for spec in (alone, shared)
    ]
    assert peaks[1] < peaks[0]
