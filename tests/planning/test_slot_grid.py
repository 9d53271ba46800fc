"""Slots as they lie on nodes: every rank is there once, where its layout says, and what is left out follows."""

from __future__ import annotations

from collections import Counter
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.parallel.layout import Coordinate, Layout
from hybridflow.placement.node_bundles import Bundles, misplaced
from hybridflow.planning.arrangement import Arrangement, Seat
from hybridflow.planning.slot_grid import AXES, Run, View, blocks_of, packed_nodes, runs_of

TWO = ("first", "second")


def one_by_one(arrangement: Arrangement) -> dict[str, Bundles]:
    """Pools whose slots may be anywhere."""
    return {pool: Bundles(slots) for pool, slots in arrangement.pools.items()}


@st.composite
def arrangements(draw: st.DrawFn) -> tuple[Arrangement, int]:
    """Two pools of at most 64 slots with two roles each, one of which generates; and the devices of a node."""
    seats = {}
    pools = {}
    for pool in TWO:
        slots = 2 ** draw(st.integers(0, 6))
        for role in ("policy", "judge"):
            tensor, pipeline = (min(2 ** draw(st.integers(0, 3)), slots), 1)
            if draw(st.booleans()) and slots // tensor > 1:
                pipeline = 2
            generation = (max(tensor // 2, 1), pipeline) if role == "policy" else None
            seats[f"{role} of {pool}"] = Seat(
                pool, Layout(tensor, pipeline, slots // tensor // pipeline, generation=generation)
            )
        pools[pool] = slots
    return Arrangement(pools, seats), draw(st.sampled_from((1, 4, 8, 12, 72)))


@settings(max_examples=40, deadline=None)
@given(arrangements())
def test_every_rank_is_there_once_where_its_layout_says(drawn: tuple[Arrangement, int]) -> None:
    arrangement, per_node = drawn
    nodes = packed_nodes(one_by_one(arrangement), per_node)
    runs = runs_of([*blocks_of(arrangement, nodes)])
    seen: Counter[tuple[str, int]] = Counter()
    for run in runs:
        for place, block in enumerate(run.blocks):
            assert {nodes[block.pool][slot] for slot in block.slots} == {block.node}
            assert block.node == run.blocks[0].node + place * run.nodes
            for view, ranks in block.ranks.items():
                layout = arrangement.seats[view.role].layout
                where = layout.generation_coordinates if view.generates else layout.coordinates
                assert ranks == tuple(where[slot] for slot in block.slots)
                assert ranks == tuple(moved(run, view, at, place) for at in run.blocks[0].ranks[view])
            seen.update((block.pool, slot) for slot in block.slots)
    assert seen == Counter((pool, slot) for pool in TWO for slot in range(arrangement.pools[pool]))


def moved(run: Run, view: View, at: Coordinate, blocks: int) -> Coordinate:
    """A coordinate so many blocks further, as a picture of the run says it."""
    step = run.steps.get(view, Coordinate())
    return Coordinate(**{axis: getattr(at, axis) + blocks * getattr(step, axis) for axis in AXES})


@st.composite
def pools_of_bundles(draw: st.DrawFn) -> tuple[dict[str, Bundles], int]:
    """Pools that a cluster of such nodes could hold."""
    per_node = draw(st.integers(1, 16))
    bundles = st.builds(Bundles, st.integers(1, 9), st.integers(1, per_node), st.booleans())
    return draw(st.dictionaries(st.sampled_from("abcd"), bundles, min_size=1)), per_node


@settings(max_examples=100, deadline=None)
@given(pools_of_bundles())
def test_bundles_lie_inside_of_nodes_that_have_room(drawn: tuple[dict[str, Bundles], int]) -> None:
    pools, per_node = drawn
    nodes = packed_nodes(pools, per_node)
    for pool, bundles in pools.items():
        own = nodes[pool]
        assert len(own) == bundles.count * bundles.slots and own == sorted(own)
        assert misplaced(bundles, list(map(str, own))) == ""
        if not bundles.apart:
            assert len({*own}) == ceil(bundles.count / (per_node // bundles.slots)), "it is on no more than it needs"
    assert max(Counter(node for own in nodes.values() for node in own).values()) <= per_node
    assert {node for own in nodes.values() for node in own} == {*range(max(map(max, nodes.values())) + 1)}


def test_a_bundle_larger_than_a_node_lies_on_several() -> None:
    assert packed_nodes({"main": Bundles(2, 4)}, 3) == {"main": [0, 0, 0, 1, 2, 2, 2, 3]}


def test_sixteen_equal_nodes_are_one_run() -> None:
    seats = {"actor": Seat("main", Layout(8, 1, 16, generation=(2, 1))), "reward": Seat("main", Layout(data=128))}
    arrangement = Arrangement({"main": 128}, seats)
    (run,) = runs_of([*blocks_of(arrangement, packed_nodes(one_by_one(arrangement), 8))])
    assert (len(run.blocks), run.nodes) == (16, 1)
    assert run.steps == {
        View("actor", False): Coordinate(dp=1),
        View("actor", True): Coordinate(dp=4),
        View("reward", False): Coordinate(dp=8),
    }


def test_pipeline_stages_part_what_does_not_go_on_evenly() -> None:
    seats = {"actor": Seat("main", Layout(8, 2, 4))}  # the stage is the slowest number
    arrangement = Arrangement({"main": 64}, seats)
    runs = runs_of([*blocks_of(arrangement, packed_nodes(one_by_one(arrangement), 8))])
    assert [len(run.blocks) for run in runs] == [4, 4]
