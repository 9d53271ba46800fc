"""Slots by node: which of a pool must be together, whether nodes have room for them, and in which order they are ranks.

Tensor parallelism exchanges activations in every layer, so a tensor group stays inside a node; pipeline stages and data
parallel replicas may be on several. With the ranks in Megatron's order, tensor first, a group is a run of ranks: so the
cluster is asked for *bundles* of slots, each on one node, that such groups fill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import lcm

from hybridflow.errors import counted
from hybridflow.parallel.layout import Layout


@dataclass(frozen=True)
class Bundles:
    """Slots that are asked for: the slots of a bundle are on one node.

    Attributes:
        count: of bundles.
        slots: of each.
        apart: each is on another node.
    """

    count: int
    slots: int = 1
    apart: bool = False

    def __str__(self) -> str:
        if self.apart:
            return f"{counted(self.slots, 'slot')} on each of {counted(self.count, 'node')}"
        if self.slots == 1:
            return counted(self.count, "slot")
        return f"{self.count} x {self.slots} slots, each {self.slots} on one node"

    def room(self, nodes: Iterable[Mapping[str, float]], slot: Mapping[str, float]) -> int:
        """Count the bundles that there is room for, of those that are wanted.

        Args:
            nodes: what each has, by the name of the resource.
            slot: what a slot takes.
        """
        most = 1 if self.apart else self.count
        fit = (
            int(min(node.get(name, 0.0) // (amount * self.slots) for name, amount in slot.items())) for node in nodes
        )
        return min(self.count, sum(min(most, max(0, number)) for number in fit))


def bundles_of(slots: int, nodes: int | None = None, together: int = 1) -> Bundles:
    """Return what is asked for a pool of so many slots.

    Args:
        nodes: that they are on, as many on each; None: wherever there is room.
        together: slots in a row that are on one node.

    Raises ValueError if the slots are no whole number of such parts.
    """
    if slots % (nodes or together):
        parts = counted(nodes, "node") if nodes else f"parts of {together}"
        raise ValueError(f"{counted(slots, 'slot')} cannot be shared out evenly over {parts}")
    return Bundles(slots // together, together) if nodes is None else Bundles(nodes, slots // nodes, apart=True)


def slots_together(layouts: Iterable[Layout]) -> int:
    """Return how many ranks in a row must be on one node, so that the tensor groups of all layouts are inside of nodes.

    Groups of one layout begin at multiples of their size; so those of two sizes together fill runs of the least common
    multiple. In generation a group is a part of one in training.
    """
    return lcm(*(layout.tensor for layout in layouts))


def ranks_by_node(nodes: Sequence[str], slots: int) -> list[int]:
    """Return the bundle of each rank: ranks are numbered node by node, in the order in which the nodes first appear.

    Args:
        nodes: of each bundle.
        slots: of a bundle.
    """
    order = {node: number for number, node in enumerate(dict.fromkeys(nodes))}
    by_node = sorted(range(len(nodes)), key=lambda bundle: order[nodes[bundle]])  # stable: else as they were
    return [bundle for bundle in by_node for _ in range(slots)]


def misplaced(bundles: Bundles, nodes: Sequence[str]) -> str:
    """Say how the nodes of ranks are not what was asked for; "" if they are."""
    counts = Counter(nodes)
    split = [at for at in range(0, len(nodes), bundles.slots) if len({*nodes[at : at + bundles.slots]}) > 1]
    if not split and not (bundles.apart and len(counts) != bundles.count):
        return ""
    there = ", ".join(f"{number} on {node}" for node, number in counts.items())
    return f"{bundles} were asked for, and there are {there}"


def split_groups(layout: Layout, nodes: Sequence[str]) -> list[list[int]]:
    """Return the tensor groups, in training and in generation, whose ranks are on several nodes."""
    generation: dict[tuple[int, int], list[int]] = {}
    for rank, at in enumerate(layout.generation_coordinates):
        generation.setdefault((at.dp, at.pp), []).append(rank)
    groups = [*layout.groups("tp"), *generation.values()]
    return [group for group in groups if len({nodes[rank] for rank in group}) > 1]
