"""Seconds that messages between ranks take, by the links that their groups cross.

A group whose ranks are on several nodes works on two floors, as NCCL's does: its ranks of a node share the message
out, each sends its share to its like on other nodes, and they join what they got.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2, prod
from typing import Any

from hybridflow.parallel.layout import Layout
from hybridflow.planning.hardware import Hardware, Link


@dataclass(frozen=True)
class GroupPlace:
    """Ranks of a group, by where they are.

    Attributes:
        within: how many of them share a node.
        nodes: that they are on.
    """

    within: int
    nodes: int


def group_place(layout: Layout, axis: str, per_node: int, size: int | None = None) -> GroupPlace:
    """Find where the ranks are that differ along an axis (`tp`, `cp`, `dp` or `pp`), if the layout begins a node.

    Args:
        size: of the group, if it is not all of the axis: its first ranks.
    """
    sizes = {"tp": layout.tensor, "cp": layout.context, "dp": layout.data, "pp": layout.pipeline, "ep": 1}
    axes = layout.order.split("-")
    stride = prod(sizes[other] for other in axes[: axes.index(axis)])
    count = sizes[axis] if size is None else size
    within = min(count, max(1, per_node // stride))
    return GroupPlace(within, ceil(count / within))


def all_reduce_s(hardware: Hardware, place: GroupPlace, size: Any) -> Any:
    """Return the seconds to add up a message of so many bytes over a group; of an array of sizes, of each."""
    inside = _ring_s(hardware, hardware.within, place.within, size, 2)
    if place.nodes == 1:
        return inside
    return inside + _ring_s(hardware, hardware.across, place.nodes, size / place.within, 2)


def all_gather_s(hardware: Hardware, place: GroupPlace, size: Any) -> Any:
    """Return the seconds until every rank of a group has all of a message that is shared out over it; its bytes."""
    inside = _ring_s(hardware, hardware.within, place.within, size, 1)
    if place.nodes == 1:
        return inside
    return inside + _ring_s(hardware, hardware.across, place.nodes, size / place.within, 1)


def send_s(hardware: Hardware, *, across: bool, size: Any) -> Any:
    """Return the seconds of a message of so many bytes from one rank to another."""
    link = hardware.across if across else hardware.within
    return link.latency_s + size / (link.bytes_per_s * hardware.efficiency.link.at(size))


def _ring_s(hardware: Hardware, link: Link, ranks: int, size: Any, rounds: int) -> Any:
    """Return the seconds of a ring: each round sends (n - 1)/n of the message; small ones go by a tree's steps."""
    if ranks == 1:
        return size * 0.0
    moved = size * (rounds * (ranks - 1) / ranks)
    return rounds * ceil(log2(ranks)) * link.latency_s + moved / (link.bytes_per_s * hardware.efficiency.link.at(size))
