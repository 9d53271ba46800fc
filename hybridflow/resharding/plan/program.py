"""Program of a group of ranks in a transition, whoever they are: givers are places in the group, not ranks.

Groups that differ in their data parallel number alone do the same, so they share a program; this is what makes the plan
of 1,024 ranks no more work than that of one training replica.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import NamedTuple

from hybridflow.models import Weight


class Part(NamedTuple):
    """Part of a weight that one giver gives: [a, b) of its split axis, counted in the Hugging Face tensor."""

    giver: int
    span: tuple[int, int]
    elements: int


@dataclass(frozen=True)
class Item:
    """Weight that arrives, and the parts it is made of in the order of its split axis.

    Attributes:
        weight: as training's table has it, since training's shards are what is asked for it.
        elements: of all that arrives.
        parts: none: nothing travels, because every taker has it already or there is nothing of it on them.
    """

    weight: Weight
    elements: int
    parts: tuple[Part, ...] = ()

    @property
    def moved(self) -> int:
        """Elements that travel."""
        return self.elements if self.parts else 0

    @property
    def outside_formula(self) -> bool:
        """True if the paper's M leaves it out: it is not split, or it is the copy that a tied output layer is."""
        return self.weight.axis is None or self.weight.is_tied_copy

    @property
    def text(self) -> str:
        """Line that says all of it."""
        parts = " ".join(f"{giver}:{a}-{b}" for giver, (a, b), _ in self.parts)
        return f"{self.weight.name} {self.weight.place} {self.elements} {parts}"


@dataclass(frozen=True)
class Bucket:
    """Items whose parts travel together."""

    items: tuple[Item, ...]

    def given_by(self, giver: int) -> Iterator[tuple[Item, Part]]:
        """List what a giver gives, in the order in which it is laid out."""
        return ((item, part) for item in self.items for part in item.parts if part.giver == giver)

    @cached_property
    def sizes(self) -> Counter[int]:
        """Elements by giver; who gives nothing is left out."""
        return _given(self.items)

    @cached_property
    def size(self) -> int:
        """Elements that travel."""
        return sum(item.moved for item in self.items)


@dataclass(frozen=True)
class Program:
    """Buckets in order of execution."""

    buckets: tuple[Bucket, ...]

    @property
    def items(self) -> Iterator[Item]:
        """Items that arrive, in order."""
        return (item for bucket in self.buckets for item in bucket.items)

    @cached_property
    def given(self) -> Counter[int]:
        """Elements by giver."""
        return _given(self.items)

    @cached_property
    def outside_formula(self) -> Counter[int]:
        """Elements by giver that the paper's M leaves out; see `Item.outside_formula`."""
        return _given(item for item in self.items if item.outside_formula)

    @cached_property
    def elements(self) -> int:
        """Elements of all that a taker has in the end."""
        return sum(item.elements for item in self.items)

    @cached_property
    def largest(self) -> int:
        """Elements of the largest bucket."""
        return max((bucket.size for bucket in self.buckets), default=0)

    @cached_property
    def digest(self) -> str:
        """Hash (sha256) of its text."""
        digest = sha256()
        for bucket in self.buckets:
            digest.update("".join(["bucket\n", *(item.text + "\n" for item in bucket.items)]).encode())
        return digest.hexdigest()


def _given(items: Iterable[Item]) -> Counter[int]:
    elements: Counter[int] = Counter()
    for item in items:
        for part in item.parts:
            elements[part.giver] += part.elements
    return elements
