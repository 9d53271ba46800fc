"""Sharding: how an engine lays the weights of a model over its ranks. Pure: asked where no engine is.

A sharding that exists is one that works: what the model does not allow is refused when it is made, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from hybridflow.models import Head, ModelShape, Weight, stage_table
from hybridflow.models.weight_files import Slice
from hybridflow.parallel.layout import Coordinate

Span = tuple[int, int]


class Sharding(Protocol):
    """Model over the ranks of one replica.

    Experts, ZeRO-3's parts and adapters are other shardings: whoever asks sees coordinates, and regions of weights.
    """

    @property
    def shape(self) -> ModelShape:
        """Sizes of the model."""
        ...

    @property
    def tensor(self) -> int:
        """Tensor ranks of a stage."""
        ...

    @property
    def pipeline(self) -> int:
        """Stages."""
        ...

    def weights(self, at: Coordinate) -> Sequence[Weight]:
        """Return the weights that a coordinate has a region of, in the order of the weight table."""
        ...

    def region(self, weight: Weight, at: Coordinate) -> Span | None:
        """Return the part [a, b) of the weight's split axis at a coordinate; None if that has nothing of the weight.

        It is counted in the rows of the Hugging Face tensor, so padding is in none: the last ones may be empty. A
        weight without a split axis is whole wherever it is.
        """
        ...

    def holders(self, weight: Weight) -> Sequence[Coordinate]:
        """Return the coordinates in a replica that have it, by the start of their regions; none: it has no such place.

        With tied embeddings the last of several stages has a copy of the first one's embedding, a place of its own.
        """
        ...


class Indivisible(NamedTuple):
    """Size that a model does not allow.

    Attributes:
        size: the setting to change, `tensor` or `pipeline`.
        reason: what is wrong with the given one; goes on with "of" and the model's name.
    """

    size: str
    given: int
    reason: str


class ShardingError(ValueError):
    """Raised for a model that cannot be laid out so.

    Attributes:
        problems: the first that is wrong with each size.
    """

    def __init__(self, problems: Sequence[Indivisible]) -> None:
        super().__init__("; ".join(f"{size} size {value} {reason}" for size, value, reason in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class TensorSharding:
    """Layers in runs over pipeline stages; in a stage each weight in equal runs of its split axis over tensor ranks.

    What an engine pads, copies or refuses, it says by overriding `padded`, `copies` and `refusals`.

    Raises ShardingError if a size does not divide what it cuts.
    """

    shape: ModelShape
    tensor: int = 1
    pipeline: int = 1
    head: Head = Head.lm

    def __post_init__(self) -> None:
        first: dict[str, Indivisible] = {}
        for problem in self.refusals():
            first.setdefault(problem.size, problem)
        if first:
            raise ShardingError(list(first.values()))

    def refusals(self) -> Iterator[Indivisible]:
        """Yield what the model does not allow."""
        yield from self.uneven("tensor", self.tensor, self.shape.heads, "attention heads")
        yield from self.uneven("tensor", self.tensor, self.shape.kv_heads, "key/value heads")
        yield from self.uneven("tensor", self.tensor, self.shape.ffn, "feed-forward rows")
        yield from self.uneven("pipeline", self.pipeline, self.shape.layers, "layers")

    @staticmethod
    def uneven(size: str, value: int, whole: int, what: str) -> Iterator[Indivisible]:
        """Yield the refusal of a size that leaves a remainder."""
        if whole % value:
            yield Indivisible(size, value, f"does not divide the {whole} {what}")

    def padded(self, weight: Weight) -> int:
        """Return the size of the split axis with the rows that are only padding."""
        return weight.shape[weight.axis or 0]

    def copies(self, weight: Weight) -> int:
        """Return how many neighboring tensor ranks have the same region."""
        return 1

    @cached_property
    def stages(self) -> tuple[tuple[Weight, ...], ...]:
        """Weights of each stage."""
        return tuple(
            tuple(stage_table(self.shape, self.pipeline, stage, head=self.head)) for stage in range(self.pipeline)
        )

    @cached_property
    def _stage_of(self) -> dict[tuple[str, int | str], int]:
        return {(weight.name, weight.place): stage for stage, mine in enumerate(self.stages) for weight in mine}

    def weights(self, at: Coordinate) -> Sequence[Weight]:
        """Return the weights of its stage."""
        return self.stages[at.pp]

    def region(self, weight: Weight, at: Coordinate) -> Span | None:
        """Return an equal share of the padded axis, less the padding."""
        if self._stage_of.get((weight.name, weight.place)) != at.pp:
            return None
        if weight.axis is None:
            return 0, weight.shape[0]
        whole = weight.shape[weight.axis]
        copies = self.copies(weight)
        share = self.padded(weight) * copies // self.tensor
        first = at.tp // copies * share
        return min(first, whole), min(first + share, whole)

    def holders(self, weight: Weight) -> Sequence[Coordinate]:
        """Return the tensor ranks of its stage."""
        stage = self._stage_of.get((weight.name, weight.place))
        return [] if stage is None else [Coordinate(tp=tp, pp=stage) for tp in range(self.tensor)]

    def slices(self, at: Coordinate) -> list[Slice]:
        """Return what a coordinate reads of a Hugging Face folder."""
        spans = ((weight, self.region(weight, at)) for weight in self.weights(at))
        return [Slice(weight, span) for weight, span in spans if span is not None]


class Shardings(NamedTuple):
    """Pair of shardings of one model: in training and in generation."""

    training: Sharding
    generation: Sharding
