"""Checksums by which what generation holds is compared with what training gave."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from hybridflow.engines.sharding import Sharding
from hybridflow.resharding.plan import Part
from hybridflow.resharding.transport import Transport, in_hf_shape

MODULUS = 2**64
_BITS = {2: torch.int16, 4: torch.int32}


def checksum(tensor: Tensor) -> int:
    """Sum the numbers' bit patterns, as int64.

    It is exact and does not depend on the order, so a weight's is the sum of its parts', modulo 2⁶⁴; zeros add nothing.
    """
    return int(tensor.detach().contiguous().view(_BITS[tensor.itemsize]).sum(dtype=torch.int64))


def source_checksums(transport: Transport, generation: Sharding, place: int) -> dict[str, int]:
    """Compute the checksum of each weight's part that this rank is to have, from the training shards it comes from.

    All ranks of the transport's group call it. Nobody sums what has traveled.

    Args:
        place: this rank's tensor rank in generation.
    """
    items = list(transport.exchange.program.items)
    sums = torch.zeros(len(items), generation.tensor, dtype=torch.int64)
    for row, item in enumerate(items):
        regions = [generation.region(item.weight, at) or (0, 0) for at in generation.holders(item.weight)]
        parts = item.parts or (Part(transport.mine, regions[place], item.elements),)
        for part in (part for part in parts if part.giver == transport.mine):
            shard = in_hf_shape(transport.local.shard(item.weight), item.weight).to(transport.dtype)
            axis = item.weight.axis or 0
            first = 0 if item.weight.axis is None else part.span[0]  # a weight that is not split is whole here
            for taker, want in enumerate(regions):
                a, b = max(part.span[0], want[0]), min(part.span[1], want[1])
                if a < b:
                    sums[row, taker] = checksum(shard.narrow(axis, a - first, b - a))
    travels = torch.tensor([[bool(item.parts)] for item in items])
    totals = (sums * travels).to(transport.device)
    if transport.group is not None:
        dist.all_reduce(totals, group=transport.group)
    sums = torch.where(travels, totals.cpu(), sums)
    return {item.weight.name: int(sums[row, place]) for row, item in enumerate(items)}


def differing(sources: Mapping[str, int], loaded: Mapping[tuple[str, ...], int]) -> list[str]:
    """List the weights that an engine does not have as they were sent.

    Args:
        sources: by weight.
        loaded: by the weights that are together in one parameter of the engine.
    """
    wrong = [
        name
        for names, total in loaded.items()
        if (total - sum(sources[name] for name in names)) % MODULUS
        for name in names
    ]
    missing = set(sources) - {name for names in loaded for name in names}
    return sorted({*wrong, *missing})
