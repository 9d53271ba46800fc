"""Carry out a plan: bucketed collectives in the micro-DP group. What comes out are generation shards, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from hybridflow.models import Weight
from hybridflow.resharding.plan import Bucket, Item, Plan


class Shards(Protocol):
    """A rank's own training shards, by weight."""

    def shard(self, weight: Weight) -> Tensor:
        """A view of the parameter with the elements of the rank's part, in their order."""
        ...


def generation_shards(
    plan: Plan, local: Shards, group: dist.ProcessGroup | None, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """This rank's generation shard in `dtype`, by Hugging Face name. All ranks of the group iterate it in step.

    Args:
        group: the micro-DP group; None when it is this rank alone.
    """
    rank = dist.get_rank()
    for bucket in plan.buckets:
        given = {owner: torch.empty(bucket.size(owner), dtype=dtype, device=device) for owner in plan.ranks}
        _fill(bucket, local, given[rank], rank)
        if group is not None:
            _exchange(given, group)
        for name, shard in _assemble(bucket, local, given):
            yield name, shard.to(dtype)  # what the rank holds already is in the format of training


def _fill(bucket: Bucket, local: Shards, out: Tensor, rank: int) -> None:
    start = 0
    for item, part in bucket.given_by(rank):
        shard = local.shard(item.weight)
        out[start : start + part.elements].view(shard.shape).copy_(shard)
        start += part.elements


def _exchange(given: dict[int, Tensor], group: dist.ProcessGroup) -> None:
    """Everyone gets what everyone gives. Parts of one size go in one all-gather, others owner by owner."""
    sizes = {len(buffer) for buffer in given.values()}
    if sizes == {0}:
        return
    mine = given[dist.get_rank()]
    if len(sizes) == 1:
        dist.all_gather(list(given.values()), mine, group=group)
        return
    works = [dist.broadcast(b, owner, group=group, async_op=True) for owner, b in given.items() if len(b)]
    for work in works:
        work.wait()


def _assemble(bucket: Bucket, local: Shards, given: dict[int, Tensor]) -> Iterator[tuple[str, Tensor]]:
    starts = dict.fromkeys(given, 0)
    for item in bucket.items:
        weight = item.weight
        if not item.parts:
            yield weight.name, _own(local.shard(weight), item)
            continue
        pieces = []
        for part in item.parts:
            flat = given[part.owner][starts[part.owner] : starts[part.owner] + part.elements]
            starts[part.owner] += part.elements
            axis = weight.axis or 0
            pieces.append(flat.view(*weight.shape[:axis], part.span[1] - part.span[0], *weight.shape[axis + 1 :]))
        yield weight.name, pieces[0] if len(pieces) == 1 else torch.cat(pieces, weight.axis or 0)


def _own(shard: Tensor, item: Item) -> Tensor:
    """A shard that this rank holds already, in the Hugging Face shape."""
    weight = item.weight
    if weight.axis is None or weight.rows is None:
        return shard
    return shard.reshape(-1, *weight.shape[1:])
