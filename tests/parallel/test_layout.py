"""Layouts: coordinates, groups, and the generation view of the same ranks."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.parallel.layout import Coordinate, Layout, describe
from tests.parallel.generation_view import generation_groups

MEGATRON = "tp-cp-ep-dp-pp"
STRIDED = "cp-ep-dp-tp-pp"  # tensor parallelism over ranks that are not neighbors
PIPELINE_FIRST = "pp-dp-tp-cp-ep"


def divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    tensor, pipeline, data = draw(st.integers(1, 8)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    context = draw(st.sampled_from([1, 1, 2, 3]))
    view = st.tuples(st.sampled_from(divisors(tensor)), st.sampled_from(divisors(pipeline)))
    order = st.sampled_from([MEGATRON, STRIDED, PIPELINE_FIRST])
    return Layout(tensor, pipeline, data, draw(st.none() | view), draw(order), context)


def from_1(groups: list[list[int]]) -> list[list[int]]:
    """The paper numbers devices from 1."""
    return [[rank + 1 for rank in group] for group in groups]


def test_the_papers_example() -> None:
    """Training p-t-d = 1-4-2, generation 1-2-2-2 on 8 devices (HybridFlow, section 5.3)."""
    layout = Layout(tensor=4, pipeline=1, data=2, generation=(2, 1))
    assert from_1(layout.groups("tp")) == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert from_1(generation_groups(layout, "tp")) == [[1, 3], [2, 4], [5, 7], [6, 8]]
    assert from_1(layout.micro_dp_groups()) == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert layout.replicas == 4


def test_two_by_two_to_one_gathers_all_four() -> None:
    layout = Layout(tensor=2, pipeline=2, data=1, generation=(1, 1))
    assert layout.micro_dp_groups() == [[0, 1, 2, 3]]
    assert layout.replica_ranks == [[0], [1], [2], [3]]


def test_megatrons_order_by_hand() -> None:
    layout = Layout(tensor=2, pipeline=2, data=2)
    assert layout.groups("tp") == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert layout.groups("dp") == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert layout.groups("pp") == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert layout.groups("tp", "pp") == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_another_order_by_hand() -> None:
    layout = Layout(tensor=2, pipeline=2, data=2, order=STRIDED)
    assert layout.groups("dp") == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert layout.groups("tp") == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert layout.groups("pp") == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_the_generation_view_in_another_order() -> None:
    layout = Layout(tensor=4, data=2, generation=(2, 1), order=STRIDED)
    assert layout.groups("tp") == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert layout.micro_dp_groups() == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert generation_groups(layout, "tp") == [[0, 4], [1, 5], [2, 6], [3, 7]]


@given(layouts())
def test_coordinates_and_ranks_are_one_to_one(layout: Layout) -> None:
    assert len(set(layout.coordinates)) == layout.size
    assert layout.size == layout.tensor * layout.pipeline * layout.data * layout.context


@given(layouts())
def test_generation_coordinates_are_one_to_one(layout: Layout) -> None:
    t_g, p_g = layout.generation_sizes
    found = {layout.generation_coordinate(rank) for rank in range(layout.size)}
    assert found == {Coordinate(t, p, d) for t in range(t_g) for p in range(p_g) for d in range(layout.replicas)}


@given(layouts())
def test_the_generation_shard_contains_the_training_shard(layout: Layout) -> None:
    t_g, p_g = layout.generation_sizes
    for rank, at in enumerate(layout.coordinates):
        made = layout.generation_coordinate(rank)
        for mine, size, whole, parts in ((at.tp, layout.tensor, made.tp, t_g), (at.pp, layout.pipeline, made.pp, p_g)):
            assert Fraction(whole, parts) <= Fraction(mine, size)
            assert Fraction(mine + 1, size) <= Fraction(whole + 1, parts)


@given(layouts())
def test_a_micro_dp_group_holds_its_generation_shard_exactly_once(layout: Layout) -> None:
    t_g, p_g = layout.generation_sizes
    for group in layout.micro_dp_groups():
        held = {(layout.coordinates[rank].tp, layout.coordinates[rank].pp) for rank in group}
        made = {(layout.generation_coordinate(rank).tp, layout.generation_coordinate(rank).pp) for rank in group}
        assert len(held) == len(group) == layout.tensor * layout.pipeline // (t_g * p_g)
        assert len(made) == 1
        assert len({(layout.coordinates[rank].dp, layout.coordinates[rank].cp) for rank in group}) == 1
        assert len({layout.generation_coordinate(rank).dp for rank in group}) == len(group)


@given(layouts())
def test_all_groups_are_partitions(layout: Layout) -> None:
    partitions = [layout.groups(*axes) for axes in (("tp",), ("pp",), ("dp",), ("cp",), ("tp", "pp"))]
    partitions += [generation_groups(layout, "tp"), generation_groups(layout, "pp")]
    for groups in [*partitions, layout.micro_dp_groups(), layout.replica_ranks]:
        assert sorted(rank for group in groups for rank in group) == list(range(layout.size))


@given(layouts())
def test_generation_groups_are_in_the_order_of_their_position(layout: Layout) -> None:
    for axis, size in zip(("tp", "pp"), layout.generation_sizes, strict=True):
        for group in generation_groups(layout, axis):
            assert [getattr(layout.generation_coordinate(rank), axis) for rank in group] == list(range(size))


@given(layouts())
def test_a_generation_replica_stays_inside_its_training_replica(layout: Layout) -> None:
    for ranks in layout.replica_ranks:
        assert len({(layout.coordinates[rank].dp, layout.coordinates[rank].cp) for rank in ranks}) == 1


@given(layouts())
def test_heads_and_stages_are_one_rank_for_each(layout: Layout) -> None:
    heads = [layout.coordinates[rank] for rank in layout.output_ranks]
    assert heads == [Coordinate(pp=layout.pipeline - 1, dp=dp) for dp in range(layout.data)]
    assert [layout.coordinates[rank] for rank in layout.stage_ranks] == [
        Coordinate(pp=p) for p in range(layout.pipeline)
    ]
    made = [layout.generation_coordinate(rank) for rank in layout.generation_output_ranks]
    last = layout.generation_sizes[1] - 1
    assert made == [Coordinate(pp=last, dp=replica) for replica in range(layout.replicas)]


@given(layouts())
def test_without_other_sizes_both_views_are_the_same(layout: Layout) -> None:
    same = Layout(layout.tensor, layout.pipeline, layout.data, order=layout.order)
    assert list(same.generation_coordinates) == list(same.coordinates)
    assert all(len(group) == 1 for group in same.micro_dp_groups())


def test_experts_are_shared_out_over_the_ranks_of_a_stage() -> None:
    assert Layout(2, 2, 3, expert=6).size == 12
    with pytest.raises(ValueError, match="expert size 4 must divide the ranks of a stage"):
        Layout(2, 2, 3, expert=4)


def test_the_ranks_of_a_context_group_are_replicas_in_generation() -> None:
    layout = Layout(tensor=2, context=2, data=1)
    assert layout.groups("cp") == [[0, 2], [1, 3]] and layout.micro_dp_groups() == [[0], [1], [2], [3]]
    assert layout.replicas == 2 and layout.replica_ranks == [[0, 1], [2, 3]]


@pytest.mark.parametrize("sizes", [(0, 1, 1, 1), (1, -1, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0)])
def test_sizes_start_at_1(sizes: tuple[int, int, int, int]) -> None:
    tensor, pipeline, data, context = sizes
    with pytest.raises(ValueError, match="at least 1"):
        Layout(tensor, pipeline, data, context=context)


@pytest.mark.parametrize("generation", [(3, 1), (1, 3), (8, 1), (0, 1), (1, 0), (-1, 1)])
def test_generation_sizes_must_divide(generation: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"must divide training sizes \(4, 2\)"):
        Layout(tensor=4, pipeline=2, generation=generation)


@pytest.mark.parametrize("order", ["tp-dp-pp", "tp-cp-ep-dp-xx", "tp-tp-cp-ep-dp-pp", ""])
def test_an_order_names_every_axis_once(order: str) -> None:
    with pytest.raises(ValueError, match="must name each of tp, cp, ep, dp, pp once"):
        Layout(order=order)


def test_a_layout_in_words() -> None:
    assert describe(Layout(2, 1, 3)) == "6 ranks, tensor 2 × pipeline 1 × data 3"
    generates = describe(Layout(2, 2, 1, generation=(1, 1)))
    assert generates.endswith("; generates as 4 replicas of tensor 1 × pipeline 1")


def test_the_papers_naive_example() -> None:
    """HybridFlow-V on the same 8 devices: generation groups are neighbors."""
    layout = Layout(tensor=4, pipeline=1, data=2, generation=(2, 1), nested=False)
    assert from_1(generation_groups(layout, "tp")) == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert layout.replica_ranks == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert layout.generation_output_ranks == (0, 2, 4, 6)
    assert describe(layout).endswith("generates as 4 replicas of tensor 2 × pipeline 1, not nested")


@given(layouts())
def test_naive_replicas_are_neighbors_in_the_training_replica_and_whole(layout: Layout) -> None:
    naive = replace(layout, nested=False)
    t_g, p_g = naive.generation_sizes
    for ranks in naive.replica_ranks:
        at = [naive.generation_coordinate(rank) for rank in ranks]
        assert sorted((a.pp, a.tp) for a in at) == [(pp, tp) for pp in range(p_g) for tp in range(t_g)]
        places = sorted(naive.coordinates[rank].pp * naive.tensor + naive.coordinates[rank].tp for rank in ranks)
        assert places == list(range(places[0], places[0] + t_g * p_g))
        assert len({(naive.coordinates[rank].dp, naive.coordinates[rank].cp) for rank in ranks}) == 1
