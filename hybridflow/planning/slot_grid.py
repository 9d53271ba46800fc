"""Slots of a placement as they lie on nodes: which rank of each role is where, and what of that repeats.

It is what pictures of a placement are drawn from. A placement on many nodes is alike on most of them, but for numbers
that go on evenly: such blocks of slots are one `Run`, of which a picture shows the first and how the others follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from hybridflow.parallel.layout import Coordinate
from hybridflow.placement.node_bundles import Bundles
from hybridflow.planning.arrangement import Arrangement

WIDEST = 8  # slots of a block
AXES = ("tp", "pp", "cp", "dp")


class View(NamedTuple):
    """Role, and which of its two layouts: that in generation numbers its replicas by `dp`."""

    role: str
    generates: bool


@dataclass(frozen=True)
class Block:
    """Neighboring slots of a pool on one node, few enough to be drawn beside each other.

    Attributes:
        slots: their numbers in the pool, which are the ranks of its roles.
        ranks: the coordinate of each of these ranks.
    """

    pool: str
    node: int
    slots: tuple[int, ...]
    ranks: Mapping[View, tuple[Coordinate, ...]]


@dataclass(frozen=True)
class Run:
    """Blocks of a pool that follow each other, alike but for numbers that go on evenly.

    Attributes:
        nodes: from each block to the next.
        steps: by view, what each coordinate adds from each block to the next.
    """

    blocks: tuple[Block, ...]
    nodes: int = 0
    steps: Mapping[View, Coordinate] = field(default_factory=dict)


def blocks_of(arrangement: Arrangement, nodes: Mapping[str, Sequence[int]], widest: int = WIDEST) -> Iterator[Block]:
    """Yield all slots, by pool and in order.

    Args:
        nodes: by pool, the node of each slot.
        widest: slots of a block.
    """
    for pool, slots in arrangement.pools.items():
        views = dict(_views(arrangement, pool))
        for node, on_node in groupby(range(slots), lambda slot, pool=pool: nodes[pool][slot]):  # type: ignore[misc]
            numbers = tuple(on_node)
            for at in range(0, len(numbers), widest):
                part = numbers[at : at + widest]
                ranks = {view: tuple(where[slot] for slot in part) for view, where in views.items()}
                yield Block(pool, node, part, ranks)


def runs_of(blocks: Sequence[Block], shortest: int = 3) -> list[Run]:
    """Put blocks together that go on evenly; `shortest`: fewer of them stay apart."""
    runs: list[Run] = []
    at = 0
    while at < len(blocks):
        run = _longest_run(blocks, at)
        if len(run.blocks) < shortest:
            run = Run(run.blocks[:1])
        runs.append(run)
        at += len(run.blocks)
    return runs


def packed_nodes(pools: Mapping[str, Bundles], devices_per_node: int) -> dict[str, list[int]]:
    """Return by pool the node of each slot, where nodes are filled one after the other.

    A pool that the rest of a node has no room for begins on the next, so that its groups lie as they would alone. A
    bundle that is larger than a node lies on several.
    """
    nodes: dict[str, list[int]] = {}
    used = [0]  # of each node so far
    for pool, bundles in pools.items():
        if bundles.apart or bundles.count * bundles.slots > devices_per_node - used[-1]:
            used += [0] if used[-1] else []
        own: list[int] = []
        for _ in range(bundles.count):
            begun = bundles.apart and own and own[-1] == len(used) - 1
            if begun or (used[-1] and bundles.slots > devices_per_node - used[-1]):
                used.append(0)
            for _ in range(bundles.slots):
                used += [0] if used[-1] == devices_per_node else []
                used[-1] += 1
                own.append(len(used) - 1)
        nodes[pool] = own
    return nodes


def _views(arrangement: Arrangement, pool: str) -> Iterator[tuple[View, tuple[Coordinate, ...]]]:
    for role in arrangement.on(pool):
        layout = arrangement.seats[role].layout
        yield View(role, False), layout.coordinates
        if layout.generation is not None:
            yield View(role, True), layout.generation_coordinates


def _longest_run(blocks: Sequence[Block], at: int) -> Run:
    """Return the longest run that begins at a block."""
    if at + 1 == len(blocks) or (steps := _steps(blocks[at], blocks[at + 1])) is None:
        return Run((blocks[at],))
    end = at + 2
    while end < len(blocks) and _steps(blocks[end - 1], blocks[end]) == steps:
        end += 1
    nodes, by_view = steps
    return Run(tuple(blocks[at:end]), nodes, by_view)


def _steps(block: Block, following: Block) -> tuple[int, dict[View, Coordinate]] | None:
    """Return what every slot of the following block has more than its counterpart; None if they differ otherwise."""
    if block.pool != following.pool or len(block.slots) != len(following.slots):
        return None
    steps: dict[View, Coordinate] = {}
    for view, ranks in block.ranks.items():
        differences = {_difference(*pair) for pair in zip(ranks, following.ranks[view], strict=True)}
        if len(differences) > 1:
            return None
        steps[view] = differences.pop()
    return following.node - block.node, steps


def _difference(at: Coordinate, other: Coordinate) -> Coordinate:
    return Coordinate(**{axis: getattr(other, axis) - getattr(at, axis) for axis in AXES})
