"""Model FLOPs beside what torch counts of transformers' model, which computes attention as if no mask hid anything."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from hybridflow.models import Head, read_shape
from hybridflow.models.model_flops import training_flops
from hybridflow.models.model_shape import ModelShape
from tests.conftest import GetModel
from tests.planning.specs import SHAPE


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_they_are_those_that_torch_counts(name: str, tiny: GetModel) -> None:
    folder = tiny(architecture=name)
    shape = read_shape(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    lengths = [17, 5]
    counted = 0
    for length in lengths:
        with FlopCounterMode(display=False) as counter:
            model(torch.arange(1, length + 1)[None]).logits.sum().backward()
        counted += counter.get_total_flops()
    hidden_by_the_mask = 6 * shape.layers * shape.heads * shape.head_dim * sum(length**2 for length in lengths)
    expected = training_flops(shape, Head.lm, lengths) + hidden_by_the_mask
    assert counted == pytest.approx(expected, rel=0.02)  # rotations are a product of a row and a column for torch


@given(lengths=st.lists(st.integers(0, 10**6), max_size=8), some=st.integers(0, 8))
def test_those_of_rows_add_up(lengths: list[int], some: int) -> None:
    parts = [training_flops(SHAPE, Head.lm, part) for part in (lengths[:some], lengths[some:])]
    assert sum(parts) == pytest.approx(training_flops(SHAPE, Head.lm, lengths))


def test_a_value_head_is_no_output_layer() -> None:
    without = training_flops(SHAPE, Head.lm, [1]) - training_flops(SHAPE, Head.value, [1])
    assert without == 6 * (SHAPE.vocab - 1) * SHAPE.hidden


def test_of_short_rows_they_are_six_for_each_number_and_token() -> None:
    shape: ModelShape = SHAPE
    parameters = 1.2358e9  # of Llama 3.2 1B, by its model card
    assert training_flops(shape, Head.lm, [8] * 100) == pytest.approx(6 * parameters * 800, rel=0.001)
