"""Plans where training and generation share their ranks: HybridFlow's, and those that it is compared with.

Every rank of a group takes the same; how the methods differ is who forms a group and what is gathered in it:

    hybrid       the micro-DP group gathers its generation shard
    hybrid_v     the training replica gathers the whole model; places do not nest (`Layout.nested` is False)
    full_gather  the training replica gathers the whole model; places nest
    ds_chat      all ranks gather the whole model, of which each holds an equal part (ZeRO-3); a plan only: Megatron
                 holds no such parts
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache

from hybridflow.models import ModelShape, Weight, table
from hybridflow.parallel.layout import Coordinate, Layout
from hybridflow.resharding.plan.buckets import program
from hybridflow.resharding.plan.exchange import Exchange
from hybridflow.resharding.plan.plan import Plan
from hybridflow.resharding.plan.program import Item, Part, Program
from hybridflow.resharding.plan.sharding import Cut, generation_cut, line, training_cut

METHODS = ("hybrid", "hybrid_v", "full_gather", "ds_chat")


def make_plan(shape: ModelShape, layout: Layout, *, itemsize: int, bucket_bytes: int, method: str = "hybrid") -> Plan:
    """Plan the transition of all ranks of a layout.

    Args:
        itemsize: bytes of a number, as it travels.
        bucket_bytes: weights of a bucket together; a larger weight is a bucket of its own.
        method: one of METHODS.

    Raises:
        ValueError: an engine cannot cut the model so, the shards do not nest, or the method and the layout's places
            do not go together; the message says which.
    """
    _refuse_places(method, layout)
    train = training_cut(shape, layout.tensor, layout.pipeline)
    generation = generation_cut(shape, *layout.generation_sizes)
    if method == "hybrid":
        _refuse_unnested(train, generation)
    programs: dict[tuple[int, int], Program] = {}
    exchanges = []
    for ranks in _groups(method, layout):
        at = layout.generation_coordinate(ranks[0])
        key = (at.tp, at.pp) if method == "hybrid" else (0, 0)
        if key not in programs:
            places = [layout.coordinates[rank] for rank in ranks]
            items = _items(method, train, generation, at.pp, places)
            programs[key] = program(items, shape.layers // layout.pipeline, bucket_bytes // itemsize)
        exchanges.append(Exchange(tuple(ranks), tuple(ranks), programs[key]))
    return Plan(
        method=method,
        layouts=(layout,),
        itemsize=itemsize,
        bucket_bytes=bucket_bytes,
        exchanges=tuple(exchanges),
        redundant=tuple(_redundant(method, layout, train, generation, programs)),
    )


def _refuse_places(method: str, layout: Layout) -> None:
    if method not in METHODS:
        raise ValueError(f"method {method!r} given, expected one of {', '.join(METHODS)}")
    if layout.nested == (method == "hybrid_v"):
        have = "nest" if layout.nested else "do not nest"
        raise ValueError(
            f"method {method} on a layout whose places {have}: hybrid_v wants Layout(nested=False), the others True"
        )


def _refuse_unnested(train: Cut, generation: Cut) -> None:
    """Raise ValueError if the vocabulary does not nest. All else does, because it divides over both sizes."""
    per = train.tensor // generation.tensor
    for weight in table(train.shape, train.tensor):
        for tp in range(generation.tensor):
            held = train.span(weight, tp * per)[0], train.span(weight, (tp + 1) * per - 1)[1]
            if held != generation.span(weight, tp):
                raise ValueError(
                    f"{weight.name}: a vocabulary of {train.shape.vocab} is padded to {train.padded} for tensor size "
                    f"{train.tensor} of training and to {generation.padded} for {generation.tensor} of generation: "
                    "the shards do not nest"
                )


def _groups(method: str, layout: Layout) -> list[list[int]]:
    if method == "hybrid":
        return layout.micro_dp_groups()
    return [list(range(layout.size))] if method == "ds_chat" else layout.groups("tp", "pp")


def _items(method: str, train: Cut, generation: Cut, stage: int, places: Sequence[Coordinate]) -> Iterator[Item]:
    """Yield what a group gathers: the weights of generation's `stage`, or all of them."""
    if method == "hybrid":
        return (_item(train.own(weight), train, places) for weight in generation.stages[stage])
    whole = table(train.shape, train.tensor)
    if method == "ds_chat":
        return (_split(_flat(weight), range(len(places))) for weight in whole)
    return (_item(weight, train, places) for weight in whole)


def _item(weight: Weight, train: Cut, places: Sequence[Coordinate]) -> Item:
    stage = weight.stage(train.shape.layers, train.pipeline)
    holders = sorted((i for i, at in enumerate(places) if at.pp == stage), key=lambda i: places[i].tp)
    if weight.axis is None:
        everywhere = len(holders) == len(places)
        return Item(weight, math.prod(weight.shape)) if everywhere else _split(weight, holders)
    parts = []
    for i in holders:
        a, b = train.span(weight, places[i].tp)
        if b > a:
            parts.append(Part(i, (a, b), (b - a) * line(weight)))
    return Item(weight, sum(part.elements for part in parts), tuple(parts) if len(places) > 1 else ())


def _split(weight: Weight, holders: Sequence[int]) -> Item:
    """Let each holder of the whole give an equal part of its first axis."""
    rows = weight.shape[0]
    n = len(holders)
    bounds = [rows * i // n for i in range(n + 1)]
    spans = zip(holders, bounds, bounds[1:], strict=False)
    parts = (Part(i, (a, b), (b - a) * line(weight)) for i, a, b in spans if b > a)
    return Item(weight, math.prod(weight.shape), tuple(parts))


def _flat(weight: Weight) -> Weight:
    """View a weight as one row of numbers, as ZeRO-3 splits it."""
    return replace(weight, shape=(math.prod(weight.shape),), axis=0, blocks=None, rows=None, padded=None)


def _redundant(
    method: str, layout: Layout, train: Cut, generation: Cut, programs: dict[tuple[int, int], Program]
) -> Iterable[int]:
    """Count by rank the elements of the training shard that the generation shard does not contain."""
    if method == "ds_chat":
        [only] = programs.values()
        return (only.given[rank] for rank in range(layout.size))

    @cache
    def outside(pp: int, tp: int, stage: int, place: int) -> int:
        there = {weight.name: generation.span(weight, place) for weight in generation.stages[stage]}
        count = 0
        for weight in train.stages[pp]:
            a, b = train.span(weight, tp)
            c, d = there.get(weight.name, (a, a))
            count += (b - a - max(0, min(b, d) - max(a, c))) * line(weight)
        return count

    at = zip(layout.coordinates, layout.generation_coordinates, strict=True)
    return (outside(have.pp, have.tp, want.pp, want.tp) for have, want in at)
