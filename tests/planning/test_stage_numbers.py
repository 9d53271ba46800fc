"""Numbers of a rank: those of all its weights, laid out one by one."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest

from hybridflow.engines.base import generation_engines, training_engines
from hybridflow.engines.sharding import ShardingError, TensorSharding
from hybridflow.models import Head, ModelShape
from hybridflow.parallel.layout import Coordinate, Layout
from hybridflow.planning.stage_numbers import generation_numbers, training_numbers

SHAPE = ModelShape(
    family="qwen3", layers=12, hidden=48, ffn=72, heads=12, kv_heads=4, head_dim=8, vocab=130, tied=False,
    qkv_bias=True, norm_eps=1e-6, rope_theta=1e4, max_positions=256, qk_norm=True,
)  # fmt: skip


def all_numbers(sharding: TensorSharding, stage: int) -> int:
    return sum(
        prod(weight.shape)
        if weight.axis is None
        else weight.width * sharding.padded(weight) * sharding.copies(weight) // sharding.tensor
        for weight in sharding.weights(Coordinate(pp=stage))
    )


@pytest.mark.parametrize("pipeline", [1, 2, 3, 6])
@pytest.mark.parametrize("tensor", [1, 2, 4])
@pytest.mark.parametrize(("tied", "head"), [(False, Head.lm), (True, Head.lm), (True, Head.value)])
def test_a_stage_has_the_numbers_of_its_weights(tensor: int, pipeline: int, tied: bool, head: Head) -> None:
    shape = replace(SHAPE, tied=tied)
    sharding = training_engines.get("megatron").sharding(shape, Layout(tensor, pipeline), head=head)
    assert isinstance(sharding, TensorSharding)
    found = training_numbers("megatron", shape, tensor, pipeline, head)
    for stage in range(pipeline):
        assert found[stage].weights == all_numbers(sharding, stage)
    assert found[0].embedding == 192 // tensor * 48
    assert found[pipeline - 1].output == (192 // tensor * 48 if head is Head.lm else 0)
    assert found[0].tied == (tied and head is Head.lm and pipeline == 1)


def test_generation_copies_heads_that_are_too_few() -> None:
    sharding = generation_engines.get("vllm").sharding(replace(SHAPE, kv_heads=2), Layout(6, 2))
    assert isinstance(sharding, TensorSharding)
    found = generation_numbers("vllm", replace(SHAPE, kv_heads=2), 6, 2)
    assert [found[stage].weights for stage in (0, 1)] == [all_numbers(sharding, stage) for stage in (0, 1)]


def test_sizes_that_a_model_does_not_allow_are_refused() -> None:
    with pytest.raises(ShardingError, match="does not divide the 12 layers"):
        training_numbers("megatron", SHAPE, 1, 5, Head.lm)
