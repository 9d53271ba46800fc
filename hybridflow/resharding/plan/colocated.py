"""Plans where training and generation share their ranks: HybridFlow's, and those that it is compared with.

Every rank of a group takes the same; how the methods differ is who forms a group and what is gathered in it:

    hybrid       the micro-DP group gathers its generation shard
    hybrid_v     the training replica gathers the whole model; places do not nest (`Layout.nested` is False)
    full_gather  the training replica gathers the whole model; places nest
    ds_chat      all ranks gather the whole model, of which each holds an equal part (ZeRO-3); a plan only: no
                 engine here holds such parts
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache

from hybridflow.engines.sharding import Sharding, Shardings
from hybridflow.models import Weight, table
from hybridflow.parallel.layout import Coordinate, Layout
from hybridflow.resharding.plan.buckets import program
from hybridflow.resharding.plan.exchange import Exchange
from hybridflow.resharding.plan.plan import Plan
from hybridflow.resharding.plan.program import Item, Part, Program

METHODS = ("hybrid", "hybrid_v", "full_gather", "ds_chat")


def make_plan(
    shardings: Shardings, layout: Layout, *, itemsize: int, bucket_bytes: int, method: str = "hybrid"
) -> Plan:
    """Plan the transition of all ranks of a layout.

    Args:
        shardings: over the two views of the layout.
        itemsize: bytes of a number, as it travels.
        bucket_bytes: weights of a bucket together; a larger weight is a bucket of its own.
        method: one of METHODS.

    Raises:
        ValueError: the shards do not nest, or the method and the layout's places do not go together; the message says
            which.
    """
    train, generation = shardings
    _refuse_places(method, layout)
    if method == "hybrid":
        refuse_unnested(shardings, layout)
    programs: dict[tuple[int, int], Program] = {}
    exchanges = []
    for ranks in _groups(method, layout):
        at = layout.generation_coordinate(ranks[0])
        key = (at.tp, at.pp) if method == "hybrid" else (0, 0)
        if key not in programs:
            places = [layout.coordinates[rank] for rank in ranks]
            items = _items(method, train, generation.weights(at), places)
            programs[key] = program(items, train.shape.layers // train.pipeline, bucket_bytes // itemsize)
        exchanges.append(Exchange(tuple(ranks), tuple(ranks), programs[key]))
    return Plan(
        method=method,
        layouts=(layout,),
        itemsize=itemsize,
        bucket_bytes=bucket_bytes,
        exchanges=tuple(exchanges),
        redundant=tuple(_redundant(method, layout, train, generation, programs)),
    )


def refuse_unnested(shardings: Shardings, layout: Layout) -> None:
    """Raise ValueError naming a weight of which a micro-DP group does not have just what it is to generate with.

    Sizes that divide nest; but engines may pad a vocabulary differently, and then split it at other rows.
    """
    train, generation = shardings
    for ranks in _one_replica(layout):
        at = layout.generation_coordinate(ranks[0])
        for weight in generation.weights(at):
            if weight.axis is None:
                continue
            regions = [train.region(weight, layout.coordinates[rank]) for rank in ranks]
            starts, ends = zip(*(span for span in regions if span is not None), strict=True)
            if (have := (min(starts), max(ends))) != (want := generation.region(weight, at)):
                assert want is not None
                raise ValueError(
                    f"{weight.name}: tensor rank {at.tp} of generation has rows {want[0]} to {want[1]}, and the ranks "
                    f"that are to give it those have {have[0]} to {have[1]} in training: the shards do not nest"
                )


def _one_replica(layout: Layout) -> list[list[int]]:
    """Return the micro-DP groups of one training replica; all replicas are alike."""
    first = {rank for rank, at in enumerate(layout.coordinates) if at.dp == at.cp == 0}
    return [ranks for ranks in layout.micro_dp_groups() if ranks[0] in first]


def _refuse_places(method: str, layout: Layout) -> None:
    if method not in METHODS:
        raise ValueError(f"method {method!r} given, expected one of {', '.join(METHODS)}")
    if layout.nested == (method == "hybrid_v"):
        have = "nest" if layout.nested else "do not nest"
        raise ValueError(
            f"method {method} on a layout whose places {have}: hybrid_v wants Layout(nested=False), the others True"
        )


def _groups(method: str, layout: Layout) -> list[list[int]]:
    if method == "hybrid":
        return layout.micro_dp_groups()
    return [list(range(layout.size))] if method == "ds_chat" else layout.groups("tp", "pp")


def _items(method: str, train: Sharding, wanted: Sequence[Weight], places: Sequence[Coordinate]) -> Iterator[Item]:
    """Yield what a group gathers: the weights of its stage in generation, or all of them."""
    if method == "hybrid":
        return (_item(weight, train, places) for weight in wanted)
    whole = table(train.shape)
    if method == "ds_chat":
        return (_split(_flat(weight), range(len(places))) for weight in whole)
    return (_item(weight, train, places) for weight in whole)


def _item(weight: Weight, train: Sharding, places: Sequence[Coordinate]) -> Item:
    regions = ((i, train.region(weight, at)) for i, at in enumerate(places))
    holders = sorted(((i, span) for i, span in regions if span is not None), key=lambda one: one[1][0])
    if weight.axis is None:
        everywhere = len(holders) == len(places)
        return Item(weight, math.prod(weight.shape)) if everywhere else _split(weight, [i for i, _ in holders])
    parts = [Part(i, (a, b), (b - a) * weight.width) for i, (a, b) in holders if b > a]
    if not parts and len(holders) < len(places):  # nothing of it, as of padding, but not all have even that
        parts = [Part(holders[0][0], holders[0][1], 0)]
    return Item(weight, sum(part.elements for part in parts), tuple(parts) if len(places) > 1 else ())


def _split(weight: Weight, holders: Sequence[int]) -> Item:
    """Let each holder of the whole give an equal part of its first axis."""
    rows = weight.shape[0]
    n = len(holders)
    bounds = [rows * i // n for i in range(n + 1)]
    spans = zip(holders, bounds, bounds[1:], strict=False)
    parts = (Part(i, (a, b), (b - a) * weight.width) for i, a, b in spans if b > a)
    return Item(weight, math.prod(weight.shape), tuple(parts))


def _flat(weight: Weight) -> Weight:
    """Return a weight as ZeRO-3 cuts it: as one row of numbers."""
    return replace(weight, shape=(math.prod(weight.shape),), axis=0, along=None)


def _redundant(
    method: str, layout: Layout, train: Sharding, generation: Sharding, programs: dict[tuple[int, int], Program]
) -> Iterable[int]:
    """Count by rank the elements of the training shard that the generation shard does not contain."""
    if method == "ds_chat":
        [only] = programs.values()
        return (only.given[rank] for rank in range(layout.size))

    @cache
    def outside(have: Coordinate, want: Coordinate) -> int:
        there = {weight.name: generation.region(weight, want) for weight in generation.weights(want)}
        count = 0
        for weight in train.weights(have):
            a, b = train.region(weight, have) or (0, 0)
            c, d = there.get(weight.name) or (a, a)
            count += (b - a - max(0, min(b, d) - max(a, c))) * weight.width
        return count

    at = zip(layout.coordinates, layout.generation_coordinates, strict=True)
    return (outside(Coordinate(have.tp, have.pp), Coordinate(want.tp, want.pp)) for have, want in at)
