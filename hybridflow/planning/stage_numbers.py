"""StageNumbers: how many numbers of a model a rank of a pipeline stage has, as its engine lays the model out.

Layers are alike, so a model of as many layers as there are kinds of stages (a first, a last, those between) is laid
out, and its layers are counted as often as a stage has them: that of a large model costs no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from hybridflow.engines.base import generation_engines, training_engines
from hybridflow.engines.sharding import Sharding, TensorSharding
from hybridflow.models import Along, Head, ModelShape, Weight
from hybridflow.models.weight_table import FIRST, LAST
from hybridflow.parallel.layout import Coordinate, Layout


@dataclass(frozen=True)
class StageNumbers:
    """Numbers of the weights of one rank.

    Attributes:
        weights: all of them, with the padding of a vocabulary.
        layers: of the stage.
        embedding: those of the embedding that looks tokens up; 0 on later stages.
        output: those that logits are made with, which may be the embedding's; 0 on earlier stages, and with a scalar
            head.
        fused: those of a layer's largest matrix, as engines fuse them.
        tied: what logits are made with is the embedding's own memory.
    """

    weights: int
    layers: int
    embedding: int
    output: int
    fused: int
    tied: bool


@dataclass(frozen=True)
class ModelNumbers:
    """Numbers of a model on a rank, by the stage that it is of.

    Attributes:
        kinds: the only stage; or the first and the last; or the first, those between, and the last.
        pipeline: stages.
    """

    kinds: tuple[StageNumbers, ...]
    pipeline: int

    def __getitem__(self, stage: int) -> StageNumbers:
        if stage == self.pipeline - 1:
            return self.kinds[-1]
        return self.kinds[min(stage, 1)]


@lru_cache(maxsize=4096)
def training_numbers(engine: str, shape: ModelShape, tensor: int, pipeline: int, head: Head) -> ModelNumbers:
    """Count the numbers in training. Raises ShardingError for sizes that the model does not allow."""
    backend = training_engines.get(engine)
    backend.sharding(shape, Layout(tensor, pipeline), head=head)
    kinds = min(pipeline, 3)
    few = replace(shape, layers=kinds)
    return _numbers(backend.sharding(few, Layout(tensor, kinds), head=head), shape, pipeline, head)


@lru_cache(maxsize=4096)
def generation_numbers(engine: str, shape: ModelShape, tensor: int, pipeline: int) -> ModelNumbers:
    """Count the numbers in generation. Raises ShardingError for sizes that the model does not allow."""
    backend = generation_engines.get(engine)
    backend.sharding(shape, Layout(tensor, pipeline))
    kinds = min(pipeline, 3)
    few = replace(shape, layers=kinds)
    return _numbers(backend.sharding(few, Layout(tensor, kinds)), shape, pipeline, Head.lm)


def _numbers(few: Sharding, shape: ModelShape, pipeline: int, head: Head) -> ModelNumbers:
    layers = shape.layers // pipeline
    stages = (few.weights(Coordinate(pp=stage)) for stage in range(few.pipeline))
    return ModelNumbers(tuple(_stage(few, weights, shape, layers, head) for weights in stages), pipeline)


def _stage(sharding: Sharding, weights: Sequence[Weight], shape: ModelShape, layers: int, head: Head) -> StageNumbers:
    whole = 0
    vocabulary: dict[int | str, int] = {}
    for weight in weights:
        size = _local(sharding, weight)
        whole += size * (layers if isinstance(weight.place, int) else 1)
        if weight.along is Along.vocabulary:
            vocabulary[weight.place] = size
    tied = shape.tied and head is Head.lm and sharding.pipeline == 1
    return StageNumbers(
        weights=whole,
        layers=layers,
        embedding=vocabulary.get(FIRST, 0),
        output=vocabulary.get(FIRST if tied else LAST, 0),
        fused=2 * shape.ffn // sharding.tensor * shape.hidden,
        tied=tied,
    )


def _local(sharding: Sharding, weight: Weight) -> int:
    """Count the numbers of a weight on one tensor rank, with padding where the sharding tells of any."""
    if weight.axis is None:
        return prod(weight.shape)
    if isinstance(sharding, TensorSharding):
        return weight.width * sharding.padded(weight) * sharding.copies(weight) // sharding.tensor
    first, end = sharding.region(weight, sharding.holders(weight)[0]) or (0, 0)
    return weight.width * (end - first)
