"""Bundles of slots: whatever nodes they come to be on, tensor groups are inside of nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.parallel.layout import Layout
from hybridflow.placement.node_bundles import (
    Bundles,
    bundles_of,
    misplaced,
    ranks_by_node,
    slots_together,
    split_groups,
)

SIZES = st.integers(1, 4)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """A role's layout, with its generation, nested or not."""
    tensor, pipeline, data = draw(SIZES), draw(SIZES), draw(SIZES)
    parts = [draw(st.sampled_from([n for n in range(1, whole + 1) if whole % n == 0])) for whole in (tensor, pipeline)]
    return Layout(tensor, pipeline, data, generation=(parts[0], parts[1]), nested=draw(st.booleans()))


@given(layout=layouts(), other=SIZES, data=st.data())
def test_tensor_groups_are_inside_of_nodes(layout: Layout, other: int, data: st.DataObject) -> None:
    together = slots_together([layout, Layout(tensor=other)])
    slots = layout.size * other
    bundles = bundles_of(slots, together=together) if slots % together == 0 else bundles_of(layout.size, 1)
    spread = data.draw(st.lists(st.sampled_from("abcd"), min_size=bundles.count, max_size=bundles.count))
    of_rank = ranks_by_node(spread, bundles.slots)
    nodes = [spread[bundle] for bundle in of_rank]
    whole = Layout(layout.tensor, layout.pipeline, len(nodes) // (layout.tensor * layout.pipeline), layout.generation)
    assert split_groups(whole, nodes) == [] and misplaced(bundles, nodes) == ""
    runs = [node for at, node in enumerate(nodes) if at == 0 or nodes[at - 1] != node]
    assert len(runs) == len({*nodes}), "ranks of a node are neighbors"
    assert sorted(of_rank) == [bundle for bundle in range(bundles.count) for _ in range(bundles.slots)]


@given(nodes=st.lists(st.integers(0, 9), max_size=5), count=st.integers(1, 6), slots=SIZES, apart=st.booleans())
def test_there_is_room_exactly_if_bundles_can_be_put_one_after_the_other(
    nodes: list[int], count: int, slots: int, apart: bool
) -> None:
    left, put = [*nodes], 0
    for node in range(len(left)):
        while left[node] >= slots and put < count:
            left[node] -= slots
            put += 1
            if apart:
                break
    room = Bundles(count, slots, apart).room([{"CPU": float(cpus)} for cpus in nodes], {"CPU": 1.0})
    assert room == put


def test_a_slot_takes_all_that_it_needs_from_one_node() -> None:
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 4.0}, {"CPU": 4.0}]
    assert Bundles(8).room(nodes, {"CPU": 1.0, "GPU": 1.0}) == 2
    assert Bundles(8, 2).room(nodes, {"CPU": 1.0, "GPU": 1.0}) == 0
    assert Bundles(8).room(nodes, {"CPU": 1.0}) == 8


def test_what_is_wrong_with_slots_is_said_in_one_line() -> None:
    assert misplaced(Bundles(2, 2), ["a", "b", "b", "b"]) == (
        "2 x 2 slots, each 2 on one node were asked for, and there are 1 on a, 3 on b"
    )
    assert misplaced(Bundles(2, 2, apart=True), ["a"] * 4).startswith("2 slots on each of 2 nodes were asked for")
    assert split_groups(Layout(tensor=2, data=2), ["a", "b", "b", "b"]) == [[0, 1], [0, 1]]
    assert split_groups(Layout(tensor=2, pipeline=2), ["a", "a", "b", "b"]) == []


@pytest.mark.parametrize(("nodes", "together"), [(3, 1), (None, 2)])
def test_slots_that_cannot_be_shared_out(nodes: int | None, together: int) -> None:
    with pytest.raises(ValueError, match="7 slots cannot be shared out evenly over"):
        bundles_of(7, nodes, together)
