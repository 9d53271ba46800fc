"""Fingerprints by which what generation computes with is compared with what training gave, bit for bit.

A fingerprint is Σ aᵢ · Σ bⱼ · m(wᵢⱼ) modulo 2⁶⁴ over the bit patterns of a weight, several numbers of a row read as one
word w. The aᵢ and bⱼ are odd and drawn at random by the place in the whole tensor, so a region's is the sum of its
pieces', however they are cut; two numbers that change places show; and m is one to one where one bit differs, so any
single bit shows for certain. m(w) = w + ⌊w / 2²⁹⌋ brings the highest bits down, which a product with an even
difference of factors would else lose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from hybridflow.engines.sharding import Sharding, Span
from hybridflow.models import Weight
from hybridflow.resharding.plan import Item
from hybridflow.resharding.transport import Transport, in_hf_shape

MODULUS = 2**64
ROWS, COLUMNS = 1, 2  # seeds of the factors
_WORDS_AT_ONCE = {"cpu": 2**16}  # about what a core's cache holds
_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Region:
    """Region of a weight, as a sharding counts it, and how its fingerprint is taken.

    Attributes:
        span: [a, b) of the split axis.
        cuts: places on that axis at which its pieces may begin and end, wherever they are.
    """

    weight: Weight
    span: Span
    cuts: tuple[int, ...] = ()

    @property
    def elements(self) -> int:
        """Numbers of the region."""
        return self.weight.width * (self.span[1] - self.span[0])

    def fingerprint(self, piece: Tensor, start: int) -> int:
        """Compute the fingerprint of a piece whose first place on the split axis is `start` of the whole tensor."""
        flat = len(self.weight.shape) == 1  # a vector is a row
        along_row = flat or self.weight.axis == 1
        numbers = 1 if flat else gcd(8 // piece.itemsize, self.weight.shape[1], *(self.cuts if along_row else ()))
        at = (0, start) if along_row else (start, 0)
        return fingerprint(piece[None] if flat else piece.flatten(1), at, numbers)


def fingerprint(numbers: Tensor, at: tuple[int, int], together: int) -> int:
    """Compute the fingerprint of a rectangle of a tensor.

    Args:
        numbers: [rows, columns].
        at: its first row and column in the whole tensor.
        together: numbers of a row that are read as one word; divides its columns, and the first one's place.
    """
    rows, width = len(numbers), numbers.shape[1] // together
    if not rows * width:
        return 0
    down = _factors(ROWS, at[0] + rows, numbers.device)[at[0] :]
    across = _factors(COLUMNS, at[1] // together + width, numbers.device)[at[1] // together :]
    step = min(rows, max(1, _WORDS_AT_ONCE.get(numbers.device.type, 2**24) // width))
    room = torch.empty(step, width, dtype=torch.int64, device=numbers.device)
    sums = torch.empty(rows, dtype=torch.int64, device=numbers.device)
    for first in range(0, rows, step):
        words = _words(numbers[first : first + step], together)
        mixed = torch.bitwise_right_shift(words, 29, out=room[: len(words)]).add_(words).mul_(across)
        torch.sum(mixed, 1, out=sums[first : first + step])
    return int((sums * down).sum())


def _words(numbers: Tensor, together: int) -> Tensor:
    contiguous = numbers.detach().contiguous()
    if contiguous.storage_offset() % together:
        contiguous = contiguous.clone()
    return contiguous.view(_WORDS[numbers.itemsize * together]).to(torch.int64)


def _factors(seed: int, count: int, device: torch.device) -> Tensor:
    return _drawn(seed, 1 << (count - 1).bit_length(), device)[:count]


@lru_cache(maxsize=32)
def _drawn(seed: int, count: int, device: torch.device) -> Tensor:
    return torch.from_numpy((np.random.PCG64(seed).random_raw(count) | 1).view(np.int64)).to(device)


def regions_of(
    items: Iterable[Item], wanted: Mapping[str, Span] | None, others: Sharding | None = None
) -> list[Region]:
    """Return the region of each item that arrives at a rank.

    Args:
        wanted: by name; None: all that arrives.
        others: whose regions are made of the same items, if not all takers' are alike.
    """
    return [_region(item, wanted, others) for item in items if wanted is None or item.weight.name in wanted]


def _region(item: Item, wanted: Mapping[str, Span] | None, others: Sharding | None) -> Region:
    weight = item.weight
    spans = [part.span for part in item.parts]
    if others is not None:
        spans += [others.region(weight, at) or (0, 0) for at in others.holders(weight)]
    arrives = (min(a for a, _ in spans), max(b for _, b in spans)) if spans else (0, 0)
    return Region(
        weight, arrives if wanted is None else wanted[weight.name], tuple(place for span in spans for place in span)
    )


def source_fingerprints(transport: Transport, generation: Sharding, place: int) -> dict[str, int]:
    """Compute the fingerprint of each weight's region that this rank is to have, from the training shards.

    All ranks of the transport's group call it. What has traveled is not looked at. Of what does not travel it is 0: the
    rank that has it compares it with its own shard (`same_bits`).

    Args:
        place: this rank's tensor rank in generation.
    """
    items = list(transport.exchange.program.items)
    sums = torch.zeros(len(items), generation.tensor, dtype=torch.int64)
    for row, (item, region) in enumerate(zip(items, regions_of(items, None, generation), strict=True)):
        wants = [generation.region(item.weight, at) or (0, 0) for at in generation.holders(item.weight)]
        for part in (part for part in item.parts if part.giver == transport.mine):
            shard = in_hf_shape(transport.local.shard(item.weight), item.weight).to(transport.dtype)
            axis = item.weight.axis or 0
            first = 0 if item.weight.axis is None else part.span[0]  # a weight that is not split is whole here
            for taker, want in enumerate(wants):
                a, b = max(part.span[0], want[0]), min(part.span[1], want[1])
                if a < b:
                    sums[row, taker] = region.fingerprint(shard.narrow(axis, a - first, b - a), a)
    if transport.group is not None and any(item.parts for item in items):
        totals = sums.to(transport.device)
        dist.all_reduce(totals, group=transport.group)
        sums = totals.cpu()
    return {item.weight.name: int(sums[row, place]) for row, item in enumerate(items)}


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors of one format have the same bits; their values may be alike and these not."""
    together = gcd(8 // one.itemsize, one.shape[-1])
    return one.shape == other.shape and torch.equal(_words(one, together), _words(other, together))


def differing(
    expected: Sequence[Region],
    sources: Mapping[str, int],
    found: Mapping[str, int | None],
    before: Mapping[str, int],
    version: int | None,
) -> list[str]:
    """Describe the weights that an engine does not have as they were given.

    Args:
        sources: of each region's weight.
        found: as the engine read them; None: it has them, and does not compute with them.
        before: of the weights that it had of the last `version`.
    """
    wrong = []
    for region in expected:
        name = region.weight.name
        if not region.elements or (name in found and found[name] is not None and _equal(found[name], sources[name])):
            continue
        why = ""
        if name not in found:
            why = " (nothing was read of it)"
        elif found[name] is None:
            why = " (it is not whole, or a copy that is computed with differs from it)"
        elif name in before and _equal(found[name], before[name]):
            why = f" (still of version {version})"
        a, b = region.span
        wrong.append(f"{name} [{a}, {b}){why}")
    return wrong


def _equal(one: int | None, other: int) -> bool:
    return one is not None and (one - other) % MODULUS == 0
