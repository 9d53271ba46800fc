"""How Megatron and vLLM lay out a model, and what no sharding takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.engines.megatron.sharding import MegatronSharding
from hybridflow.engines.sharding import ShardingError, TensorSharding
from hybridflow.engines.vllm.sharding import VllmSharding
from hybridflow.parallel.layout import Coordinate
from tests.resharding.plan.simulate import SHAPE, generation_span, stage_weights, training_span


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]), st.integers(1, 600), st.booleans())
def test_training_shards_are_megatrons(tensor: int, pipeline: int, vocab: int, tied: bool) -> None:
    shape = replace(SHAPE, vocab=vocab, tied=tied)
    sharding = MegatronSharding(shape, tensor, pipeline)
    for stage in range(pipeline):
        for tp in range(tensor):
            at = Coordinate(tp, stage)
            assert list(sharding.weights(at)) == stage_weights(shape, pipeline, stage)
            for weight in sharding.weights(at):
                assert sharding.region(weight, at) == training_span(shape, weight, tensor, tp)


@given(st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([1, 2, 4]), st.integers(1, 600), st.booleans())
def test_generation_shards_are_vllms(tensor: int, pipeline: int, vocab: int, tied: bool) -> None:
    """Up to two tensor ranks a key/value head."""
    shape = replace(SHAPE, vocab=vocab, tied=tied)
    sharding = VllmSharding(shape, tensor, pipeline)
    for stage in range(pipeline):
        for tp in range(tensor):
            at = Coordinate(tp, stage)
            assert list(sharding.weights(at)) == stage_weights(shape, pipeline, stage)
            for weight in sharding.weights(at):
                assert sharding.region(weight, at) == generation_span(shape, weight, tensor, tp)


def test_a_place_that_has_nothing_of_a_weight_says_so() -> None:
    sharding = TensorSharding(replace(SHAPE, tied=True), 2, 4)
    first, copy = sharding.stages[0][0], sharding.stages[-1][-1]
    assert first.name == copy.name and copy.is_tied_copy
    assert sharding.region(first, Coordinate(0, 3)) is None and sharding.region(copy, Coordinate(0, 0)) is None
    assert sharding.holders(copy) == [Coordinate(0, 3), Coordinate(1, 3)]
    assert TensorSharding(replace(SHAPE, tied=True)).holders(copy) == [], "one stage has the embedding alone"


def test_all_sizes_that_a_model_does_not_allow_are_named_at_once() -> None:
    with pytest.raises(ShardingError) as refused:
        TensorSharding(SHAPE, 32, 3)
    assert str(refused.value) == (
        "tensor size 32 does not divide the 16 attention heads; pipeline size 3 does not divide the 8 layers"
    )
    assert [problem.size for problem in refused.value.problems] == ["tensor", "pipeline"]


def test_heads_of_generation_divide_or_fill_the_ranks() -> None:
    said = "tensor size 4 neither divides nor is a multiple of the 6 key/value heads"
    with pytest.raises(ShardingError, match=said):
        VllmSharding(replace(SHAPE, heads=12, kv_heads=6), 4)
    with pytest.raises(ShardingError, match="tensor size 32 does not divide the 16 attention heads"):
        VllmSharding(SHAPE, 32)
    with pytest.raises(ShardingError, match="tensor size 16 does not divide the 8 key/value heads"):
        MegatronSharding(SHAPE, 16)
    assert VllmSharding(SHAPE, 16).region(stage_weights(SHAPE, 1, 0)[3], Coordinate(3)) == (4, 8)
