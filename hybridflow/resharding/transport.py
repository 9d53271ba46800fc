"""Carry out a plan: bucketed collectives in the micro-DP group. What comes out are generation shards, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from hybridflow.models import Weight
from hybridflow.resharding.plan import Bucket, Exchange, Item


class Shards(Protocol):
    """A rank's own training shards, by weight."""

    def shard(self, weight: Weight) -> Tensor:
        """A view of the parameter with the elements of the rank's part, in their order."""
        ...


def generation_shards(
    exchange: Exchange, local: Shards, group: dist.ProcessGroup | None, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """This rank's generation shard in `dtype`, by Hugging Face name. All ranks of the group iterate it in step.

    Args:
        exchange: this rank's, where givers and takers are one micro-DP group.
        group: that group; None when it is this rank alone.
    """
    mine = exchange.givers.index(dist.get_rank())
    for bucket in exchange.buckets:
        given = [torch.empty(bucket.sizes[i], dtype=dtype, device=device) for i in range(len(exchange.givers))]
        _fill(bucket, local, given[mine], mine)
        if group is not None:
            _exchange(given, mine, exchange.givers, group)
        for name, shard in _assemble(bucket, local, given):
            yield name, shard.to(dtype)  # what the rank holds already is in the format of training


def _fill(bucket: Bucket, local: Shards, out: Tensor, giver: int) -> None:
    start = 0
    for item, part in bucket.given_by(giver):
        shard = local.shard(item.weight)
        if item.weight.axis is None:  # its holders each give a part
            shard = shard[slice(*part.span)]
        out[start : start + part.elements].view(shard.shape).copy_(shard)
        start += part.elements


def _exchange(given: Sequence[Tensor], mine: int, ranks: Sequence[int], group: dist.ProcessGroup) -> None:
    """Everyone gets what everyone gives. Parts of one size go in one all-gather, others giver by giver."""
    sizes = {len(buffer) for buffer in given}
    if sizes == {0}:
        return
    if len(sizes) == 1:
        dist.all_gather(list(given), given[mine], group=group)
        return
    works = [
        dist.broadcast(buffer, rank, group=group, async_op=True)
        for rank, buffer in zip(ranks, given, strict=True)
        if len(buffer)
    ]
    for work in works:
        work.wait()


def _assemble(bucket: Bucket, local: Shards, given: Sequence[Tensor]) -> Iterator[tuple[str, Tensor]]:
    starts = [0] * len(given)
    for item in bucket.items:
        weight = item.weight
        if not item.parts:
            yield weight.name, _own(local.shard(weight), item)
            continue
        pieces = []
        axis = weight.axis or 0
        for giver, (a, b), elements in item.parts:
            flat = given[giver][starts[giver] : starts[giver] + elements]
            starts[giver] += elements
            pieces.append(flat.view(*weight.shape[:axis], b - a, *weight.shape[axis + 1 :]))
        yield weight.name, pieces[0] if len(pieces) == 1 else torch.cat(pieces, axis)


def _own(shard: Tensor, item: Item) -> Tensor:
    """A shard that this rank holds already, in the Hugging Face shape."""
    weight = item.weight
    if weight.axis is None or weight.rows is None:
        return shard
    return shard.reshape(-1, *weight.shape[1:])
