"""A model as an engine cuts it: which weights a stage has, and which part of each a tensor rank has.

Megatron and vLLM agree but for two things. The vocabulary: Megatron pads it to a multiple of 64 and of its tensor size,
vLLM to a multiple of 64. Key/value heads that are fewer than the tensor ranks: vLLM gives each head to several
neighbours. Parts are counted in the rows that the Hugging Face tensor has, so padding is in none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from hybridflow.models import ModelShape, Weight, table
from hybridflow.models.weight_files import tied_copy
from hybridflow.models.weight_table import refuse_generation_cut, refuse_training_cut

Span = tuple[int, int]


@dataclass(frozen=True)
class Cut:
    """Sharding of a model over tensor ranks and pipeline stages.

    Attributes:
        tensor, pipeline: into how many.
        padded: rows of the vocabulary with its padding.
    """

    shape: ModelShape
    tensor: int
    pipeline: int
    padded: int

    @cached_property
    def stages(self) -> tuple[tuple[Weight, ...], ...]:
        """Weights of each stage; with tied embeddings the last of several has a copy of the embedding."""
        found: list[list[Weight]] = [[] for _ in range(self.pipeline)]
        for weight in table(self.shape, self.tensor):
            found[weight.stage(self.shape.layers, self.pipeline)].append(weight)
        found[-1] += tied_copy(self.shape, self.tensor, self.pipeline, self.pipeline - 1)
        return tuple(map(tuple, found))

    def own(self, weight: Weight) -> Weight:
        """Return the same weight as this sharding's table has it: padded for this tensor size, as this engine's shards
        are.
        """
        return self._by_place[weight.name, weight.param]

    @cached_property
    def _by_place(self) -> dict[tuple[str, str], Weight]:
        """Weights by name and place, since a tied embedding is in two places."""
        return {(weight.name, weight.param): weight for stage in self.stages for weight in stage}

    def span(self, weight: Weight, tp: int) -> Span:
        """Return the part [a, b) of the weight's split axis that a tensor rank has; all rows if it is not split."""
        if weight.axis is None:
            return 0, weight.shape[0]
        whole = weight.shape[weight.axis]
        if weight.padded is not None:
            share = self.padded // self.tensor
            return min(tp * share, whole), min((tp + 1) * share, whole)
        copies = self.tensor // self.shape.kv_heads if self._is_head(weight) else 1
        copies = max(copies, 1)
        share = whole * copies // self.tensor
        return tp // copies * share, (tp // copies + 1) * share

    def _is_head(self, weight: Weight) -> bool:
        """Keys and values have one head a block of the fused parameter."""
        return weight.blocks is not None and weight.rows is not None and weight.rows[1] == self.shape.head_dim


def line(weight: Weight) -> int:
    """Count the numbers at one index of the split axis (of the rows, if the weight is not split)."""
    return math.prod(weight.shape) // weight.shape[weight.axis or 0]


def training_cut(shape: ModelShape, tensor: int, pipeline: int) -> Cut:
    """Shard as Megatron does. Raises ValueError, naming it, for what does not divide."""
    refuse_training_cut(shape, tensor, pipeline)
    return Cut(shape, tensor, pipeline, shape.padded_vocab(tensor))


def generation_cut(shape: ModelShape, tensor: int, pipeline: int) -> Cut:
    """Shard as vLLM does. Raises ValueError, naming it, for what does not divide."""
    refuse_generation_cut(shape, tensor, pipeline)
    return Cut(shape, tensor, pipeline, shape.padded_vocab(1))
