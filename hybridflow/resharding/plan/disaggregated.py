"""Plans where training and generation have pools of their own: each generation rank is sent only its slices.

Each data parallel replica in training holds all that is asked for, and they share the work evenly: all that the
generation replicas need of one training shard is one long row of numbers, replica after replica, and each holder of
that shard sends an equal piece of it. No rank ever has a full tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from hybridflow.engines.sharding import Sharding, Shardings, Span
from hybridflow.models import Weight
from hybridflow.parallel.layout import Coordinate, Layout
from hybridflow.resharding.plan.buckets import program
from hybridflow.resharding.plan.exchange import Exchange
from hybridflow.resharding.plan.plan import Plan
from hybridflow.resharding.plan.program import Item, Part, Program

Shard = tuple[int, int]  # stage and tensor rank in training
Giver = tuple[int, int, int]  # replica, stage and tensor rank in training


def make_pool_plan(
    shardings: Shardings, training: Layout, generation: Layout, *, itemsize: int, bucket_bytes: int
) -> Plan:
    """Plan the transition from an actor's pool to a rollout pool, whose ranks are numbered after the actor's.

    Args:
        shardings: over each layout; shards need not nest.
        generation: of the rollout pool, by its own tensor, pipeline and data sizes.
        itemsize, bucket_bytes: as in `make_plan`.
    """
    train, target = shardings
    sizes = _Replicas(training.data * training.context, generation.data * generation.context)
    ranks = {(at.dp * training.context + at.cp, at.pp, at.tp): rank for rank, at in enumerate(training.coordinates)}
    wants: dict[tuple[int, int], list[_Wanted]] = {}
    layers = train.shape.layers // train.pipeline
    made: dict[tuple[int, int, int], tuple[list[Giver], Program]] = {}
    exchanges = []
    for rank, at in enumerate(generation.coordinates):
        first, phase = sizes.start(at.dp * generation.context + at.cp)
        if (at.pp, at.tp) not in wants:
            wants[at.pp, at.tp] = _wanted(train, target, at)
        if (key := (at.pp, at.tp, phase)) not in made:
            made[key] = _program(wants[at.pp, at.tp], sizes, phase, layers, bucket_bytes // itemsize)
        givers, what = made[key]
        giving_ranks = tuple(ranks[first + replica, stage, tp] for replica, stage, tp in givers)
        exchanges.append(Exchange(giving_ranks, (training.size + rank,), what))
    return Plan(
        method="pools",
        layouts=(training, generation),
        itemsize=itemsize,
        bucket_bytes=bucket_bytes,
        exchanges=tuple(exchanges),
    )


@dataclass(frozen=True)
class _Wanted:
    """Weight of a generation rank: the numbers of a line, and the lines by the training shard that has them."""

    weight: Weight
    width: int
    pieces: tuple[tuple[Shard, Span], ...]


@dataclass(frozen=True)
class _Replicas:
    """Numbers of replicas that give and of replicas that take."""

    give: int
    take: int

    def start(self, taker: int) -> tuple[int, int]:
        """Return the first giver of a taker, and how much of that giver's run, in parts of `take`, lies before the
        taker.
        """
        return divmod(taker * self.give, self.take)

    def shares(self, phase: int, whole: int, span: Span, start: int, width: int) -> Iterator[tuple[int, Span]]:
        """Yield who gives which lines of a piece, counted from the taker's first giver.

        In the row of take · whole numbers, number x of taker j is at j · whole + x, and giver k has those from k · take
        · whole / give on.

        Args:
            phase: see `start`.
            whole: the numbers that the taker needs of this training shard.
            span: the piece's lines.
            start: how many of those numbers come before the piece.
            width: numbers of a line.
        """
        a, b = span
        while a < b:
            giver = (phase * whole + start * self.give) // (self.take * whole)
            end = -(-((giver + 1) * self.take - phase) * whole // self.give)  # the next giver's first number
            lines = min(b - a, -(-(end - start) // width))
            yield giver, (a, a + lines)
            a += lines
            start += lines * width


def _program(
    wants: list[_Wanted], sizes: _Replicas, phase: int, layers: int, limit: int
) -> tuple[list[Giver], Program]:
    """Plan what a generation rank takes, and from whom: replicas are counted from its first giver."""
    whole: Counter[Shard] = Counter()
    for want in wants:
        for shard, (a, b) in want.pieces:
            whole[shard] += (b - a) * want.width
    before: Counter[Shard] = Counter()
    givers: dict[Giver, int] = {}
    items = []
    for want in wants:
        parts = []
        for shard, span in want.pieces:
            start = before[shard]
            width = want.width
            for replica, (a, b) in sizes.shares(phase, whole[shard], span, start, width):
                giver = givers.setdefault((replica, *shard), len(givers))
                parts.append(Part(giver, (a, b), (b - a) * width))
            before[shard] = start + (span[1] - span[0]) * width
        items.append(Item(want.weight, sum([part.elements for part in parts]), tuple(parts)))
    return list(givers), program(items, layers, limit)


def _wanted(train: Sharding, target: Sharding, at: Coordinate) -> list[_Wanted]:
    """List what a generation rank wants. One training stage has no copy of a tied embedding, but the embedding."""
    first = {weight.name: weight for weight in train.weights(Coordinate())}
    wanted = []
    for weight in target.weights(at):
        source = weight if train.holders(weight) else first[weight.name]
        span = target.region(weight, at)
        assert span is not None
        pieces = _pieces(train, source, span, (at.tp, target.tensor))
        wanted.append(_Wanted(source, weight.width, tuple(pieces)))
    return wanted


def _pieces(train: Sharding, weight: Weight, want: Span, taker: tuple[int, int]) -> Iterator[tuple[Shard, Span]]:
    """Yield the training shards that what is wanted lies in, along the split axis.

    Args:
        taker: which tensor rank wants it, of how many: they share out the holders of a weight that is not split.
    """
    holders = train.holders(weight)
    if weight.axis is None:
        number, takers = taker
        at = holders[number * len(holders) // takers]
        yield (at.pp, at.tp), want
        return
    for at in holders:
        have = train.region(weight, at)
        assert have is not None
        a, b = max(have[0], want[0]), min(have[1], want[1])
        if a < b:
            yield (at.pp, at.tp), (a, b)
