"""Carry out a plan: bucketed collectives in a group of ranks. What comes out are generation shards, one at a time.

While a bucket is handed over the next one arrives in a second buffer, and these two take turns. What comes out is a
view of one where that is possible, and the receiver's until it asks for the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from hybridflow.models import Weight
from hybridflow.resharding.live_bytes import Alive
from hybridflow.resharding.plan import Bucket, Exchange, Item


class Shards(Protocol):
    """Training shards of a rank, by weight."""

    def shard(self, weight: Weight) -> Tensor:
        """Return a view of the parameter with the elements of the rank's part, in their order."""
        ...


class Arriving(NamedTuple):
    """Bucket on its way: the numbers of the first giver, of the second, and so on."""

    buffer: Tensor
    works: Sequence[dist.Work]

    def wait(self) -> Tensor:
        """Return the numbers, once all are there."""
        for work in self.works:
            work.wait()
        return self.buffer


@dataclass(frozen=True)
class Transport:
    """Carries out this rank's part of an exchange whose givers and takers are one group.

    Attributes:
        group: its process group; None when it is this rank alone.
        dtype: of what travels and comes out.
        wanted: by name, the part [a, b) of its split axis that comes out of each weight, and no other weight does;
            None: all that is gathered.
    """

    exchange: Exchange
    local: Shards
    group: dist.ProcessGroup | None
    dtype: torch.dtype
    device: torch.device
    wanted: Mapping[str, tuple[int, int]] | None = None

    @property
    def mine(self) -> int:
        """Number of this rank among the givers."""
        return self.exchange.givers.index(dist.get_rank())

    def shards(self, alive: Alive) -> Iterator[tuple[str, Tensor]]:
        """Yield this rank's generation shard, by Hugging Face name. All ranks of the group iterate it in step.

        A shard is good until the next one is asked for.

        Args:
            alive: counts the buffers.
        """
        buckets = self.exchange.buckets
        buffers = [alive.watch(self._buffer(buckets[turn::2])) for turn in (0, 1)]
        arriving = self._start(buckets[0], buffers[0])
        for number, bucket in enumerate(buckets):
            buffer = arriving.wait()
            if number + 1 < len(buckets):
                arriving = self._start(buckets[number + 1], buffers[(number + 1) % 2])
            yield from self._hand_over(bucket, buffer, alive)

    def _buffer(self, buckets: Sequence[Bucket]) -> Tensor:
        """Allocate a buffer that is large enough for any of these buckets."""
        return torch.empty(max((b.size for b in buckets), default=0), dtype=self.dtype, device=self.device)

    def _start(self, bucket: Bucket, room: Tensor) -> Arriving:
        """Exchange a bucket. Parts of one size go in one all-gather, others giver by giver."""
        buffer = room[: bucket.size]
        self._fill(bucket, buffer)
        sizes = [bucket.sizes[giver] for giver in range(len(self.exchange.givers))]
        parts = buffer.split(sizes)
        if not bucket.size:
            return Arriving(buffer, [])
        if len(set(sizes)) == 1:
            return Arriving(
                buffer, [dist.all_gather_into_tensor(buffer, parts[self.mine], group=self.group, async_op=True)]
            )
        works = [
            dist.broadcast(part, group_src=giver, group=self.group, async_op=True)
            for giver, part in enumerate(parts)
            if len(part)
        ]
        return Arriving(buffer, works)

    def _fill(self, bucket: Bucket, buffer: Tensor) -> None:
        mine = self.mine
        for item, places in _places(bucket):
            for part, place in zip(item.parts, places, strict=True):
                if part.giver == mine:
                    shard = self.local.shard(item.weight)
                    if item.weight.axis is None:  # its holders each give a part
                        shard = shard[slice(*part.span)]
                    buffer[place].view(shard.shape).copy_(shard)

    def _hand_over(self, bucket: Bucket, buffer: Tensor, alive: Alive) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights layer by layer, so that a receiver has few unfinished ones."""
        layers: dict[int | str, list[tuple[Item, list[slice]]]] = {}
        for item, places in _places(bucket):
            if self.wanted is None or item.weight.name in self.wanted:
                layers.setdefault(item.weight.place, []).append((item, places))
        for item, places in chain.from_iterable(layers.values()):
            yield item.weight.name, self._assemble(item, places, buffer, alive)

    def _assemble(self, item: Item, places: Sequence[slice], buffer: Tensor, alive: Alive) -> Tensor:
        """Put a weight together from its parts."""
        weight = item.weight
        if not places:  # what the rank holds already is in the format of training
            own = in_hf_shape(self.local.shard(weight), weight)
            return own if own.dtype == self.dtype else alive.watch(own.to(self.dtype))
        axis = weight.axis or 0
        first, end = self.wanted[weight.name] if self.wanted is not None else (0, weight.shape[axis])
        pieces = []
        for place, (a, b) in _stretches(item, places, axis):
            part = buffer[place].view(*weight.shape[:axis], b - a, *weight.shape[axis + 1 :])
            start, stop = min(max(a, first), b), max(min(b, end), a)
            pieces.append(part.narrow(axis, start - a, max(stop - start, 0)))
        some = [piece for piece in pieces if piece.shape[axis]] or pieces[:1]
        if len(some) > 1:
            return alive.watch(torch.cat(some, axis))
        return some[0]


def in_hf_shape(shard: Tensor, weight: Weight) -> Tensor:
    """View a training shard in the shape that the Hugging Face tensor has but for the split axis."""
    return shard.reshape(-1, *weight.shape[1:]) if shard.dim() > len(weight.shape) else shard


def _places(bucket: Bucket) -> Iterator[tuple[Item, list[slice]]]:
    """Yield where in the bucket's buffer the parts of each item lie: giver after giver."""
    starts = {}
    start = 0
    for giver in sorted(bucket.sizes):
        starts[giver] = start
        start += bucket.sizes[giver]
    for item in bucket.items:
        places = []
        for giver, _, elements in item.parts:
            places.append(slice(starts[giver], starts[giver] + elements))
            starts[giver] += elements
        yield item, places


def _stretches(item: Item, places: Sequence[slice], axis: int) -> Iterator[tuple[slice, tuple[int, int]]]:
    """Yield the parts' places and spans; joined where they lie end to end in the weight's order: in a bucket of one
    item.
    """
    joined = [(place, part.span) for place, part in zip(places, item.parts, strict=True)]
    if axis == 0 and all(p.stop == q.start and a[1] == b[0] for (p, a), (q, b) in pairwise(joined)):
        yield slice(places[0].start, places[-1].stop), (joined[0][1][0], joined[-1][1][1])
    else:
        yield from joined
