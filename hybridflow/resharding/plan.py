"""The plan of a transition: which rank gives which part of which weight to its micro-DP group. Pure arithmetic.

Every rank of a micro-DP group needs the same generation shard, and together they hold it (see `parallel.layout`), so
each part is given by one rank and taken by the others. A weight that all of them hold whole moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hybridflow.models import Shape, Weight, table
from hybridflow.parallel.layout import Layout, position


@dataclass(frozen=True)
class Part:
    """What one rank gives of a weight: [a, b) of its split axis, counted in the Hugging Face tensor."""

    owner: int
    span: tuple[int, int]
    elements: int


@dataclass(frozen=True)
class Item:
    """One weight of a generation shard and the parts it is made of; no parts: every rank has it already."""

    weight: Weight
    parts: tuple[Part, ...]

    @property
    def elements(self) -> int:
        """Elements of the generation shard that some rank must be given."""
        return sum(part.elements for part in self.parts)


@dataclass(frozen=True)
class Bucket:
    """Items whose parts travel together."""

    items: tuple[Item, ...]

    def given_by(self, owner: int) -> Iterator[tuple[Item, Part]]:
        """What a rank gives, in the order in which it is laid out."""
        return ((item, part) for item in self.items for part in item.parts if part.owner == owner)

    def size(self, owner: int) -> int:
        """Elements that a rank gives."""
        return sum(part.elements for _, part in self.given_by(owner))


@dataclass(frozen=True)
class Plan:
    """A micro-DP group's transition; the same on each of its ranks.

    Attributes:
        ranks: the group, in rank order.
        buckets: in order of execution.
    """

    ranks: tuple[int, ...]
    buckets: tuple[Bucket, ...]

    def received(self, rank: int) -> int:
        """Elements that a rank receives from others."""
        return sum(bucket.size(owner) for bucket in self.buckets for owner in self.ranks if owner != rank)


def make_plan(shape: Shape, layout: Layout, rank: int, bucket_elements: int) -> Plan:
    """The transition of the micro-DP group that `rank` is in.

    Args:
        bucket_elements: parts of a bucket together; a larger item is a bucket of its own.

    Raises:
        ValueError: a weight's shards do not nest (its split does not divide, or the vocabulary is padded otherwise).
    """
    _refuse_uneven(shape, layout.tensor)
    t_g, _ = layout.generation_sizes
    if shape.padded_vocab(layout.tensor) != shape.padded_vocab(t_g):
        raise ValueError(
            f"a vocabulary of {shape.vocab} is padded to {shape.padded_vocab(layout.tensor)} for tensor size "
            f"{layout.tensor} and to {shape.padded_vocab(t_g)} for {t_g}: the shards do not nest"
        )
    ranks = tuple(position(layout.micro_dp_groups(), rank))
    items = [_item(weight, shape, layout, ranks) for weight in _needed(shape, layout, rank)]
    return Plan(ranks, tuple(_buckets(items, bucket_elements)))


def _refuse_uneven(shape: Shape, tensor: int) -> None:
    for weight in table(shape, tensor):
        if weight.axis is None or weight.padded is not None:
            continue
        whole = weight.blocks or weight.shape[weight.axis]
        if whole % tensor:
            kind = "key/value heads" if weight.blocks else "rows" if weight.axis == 0 else "columns"
            raise ValueError(f"{weight.name} has {whole} {kind}, which do not divide over tensor size {tensor}")


def _needed(shape: Shape, layout: Layout, rank: int) -> list[Weight]:
    """The weights of a rank's generation stage."""
    stage, (_, p_g) = layout.generation_coordinate(rank).pp, layout.generation_sizes
    return [w for w in table(shape, layout.tensor) if w.stage(shape.layers, p_g) == stage]


def _item(weight: Weight, shape: Shape, layout: Layout, ranks: Sequence[int]) -> Item:
    stage = weight.stage(shape.layers, layout.pipeline)
    holders = [r for r in ranks if layout.coordinates[r].pp == stage]
    if weight.axis is None:
        holders = [] if len(holders) == len(ranks) else holders[:1]
    elif len(ranks) == 1:
        holders = []
    parts = []
    for owner in sorted(holders, key=lambda r: layout.coordinates[r].tp):
        a, b = weight.span(layout.tensor, layout.coordinates[owner].tp)
        elements = 1
        for size in weight.shard_shape(layout.tensor, layout.coordinates[owner].tp):
            elements *= size
        parts.append(Part(owner, (a, b), elements))
    return Item(weight, tuple(parts))


def _buckets(items: Sequence[Item], limit: int) -> Iterator[Bucket]:
    bucket: list[Item] = []
    size = 0
    for item in items:
        if bucket and size + item.elements > limit:
            yield Bucket(tuple(bucket))
            bucket, size = [], 0
        bucket.append(item)
        size += item.elements
    if bucket:
        yield Bucket(tuple(bucket))
