"""How Megatron and vLLM cut a model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.resharding.plan.sharding import generation_cut, training_cut
from tests.resharding.plan.simulate import SHAPE, generation_span, generation_weights


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]), st.integers(1, 600), st.booleans())
def test_training_spans_are_those_of_the_parameters(tensor: int, pipeline: int, vocab: int, tied: bool) -> None:
    """The weight table says what a Megatron parameter holds."""
    cut = training_cut(replace(SHAPE, vocab=vocab, tied=tied), tensor, pipeline)
    for weights in cut.stages:
        for weight in weights:
            for tp in range(tensor):
                assert cut.span(weight, tp) == weight.span(tensor, tp)


@given(st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([1, 2, 4]), st.integers(1, 600), st.booleans())
def test_generation_shards_are_vllms(tensor: int, pipeline: int, vocab: int, tied: bool) -> None:
    """Up to two tensor ranks a key/value head."""
    shape = replace(SHAPE, vocab=vocab, tied=tied)
    cut = generation_cut(shape, tensor, pipeline)
    for stage, weights in enumerate(cut.stages):
        assert [w.name for w in weights] == [w.name for w in generation_weights(shape, pipeline, stage)]
        for weight in weights:
            for tp in range(tensor):
                assert cut.span(weight, tp) == generation_span(shape, weight, tensor, tp)


def test_heads_that_neither_divide_nor_fill_are_refused() -> None:
    with pytest.raises(ValueError, match="6 key/value heads neither divide nor fill tensor size 4 of generation"):
        generation_cut(replace(SHAPE, heads=12, kv_heads=6), 4, 1)
    with pytest.raises(ValueError, match="16 attention heads do not divide over tensor size 32 of generation"):
        generation_cut(SHAPE, 32, 1)
