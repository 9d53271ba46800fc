"""The weight table: names and shapes are transformers', and every weight has a stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

from hybridflow.models import Head, ModelShape, Weight, table
from hybridflow.models.model_shape import shape_of
from tests.engines.megatron.test_sharding import shapes


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_names_and_shapes_are_those_that_transformers_saves(architecture: str, tied: bool, tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        architecture, vocab_size=70, hidden_size=24, intermediate_size=36, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=3, tie_word_embeddings=tied, max_position_embeddings=64,
        **({} if architecture == "qwen2" else {"head_dim": 8}),
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as reader:
        saved = {name: tuple(reader.get_slice(name).get_shape()) for name in reader.keys()}  # noqa: SIM118
    found = table(shape_of(model.config.to_dict()))
    assert len({weight.name for weight in found}) == len(found)
    assert {weight.name: weight.shape for weight in found} == saved


@pytest.mark.parametrize("tied", [False, True])
def test_a_value_head_takes_the_place_of_the_output_layer(tied: bool) -> None:
    config = Qwen2Config(architectures=["Qwen2ForCausalLM"], num_hidden_layers=1, tie_word_embeddings=tied)
    shape = shape_of(config.to_dict())
    lm, value, reward = (table(shape, head=head) for head in Head)
    assert [w for w in lm if w.name != "lm_head.weight"] == value[:-1] == reward[:-1]
    assert (value[-1].name, value[-1].shape, value[-1].axis) == ("value_head.weight", (1, shape.hidden), None)
    assert reward[-1] == replace(value[-1], name="score.weight")


@given(shapes(), st.integers(1, 2))
def test_every_weight_has_a_stage(shape: ModelShape, pipeline: int) -> None:
    layers = 2 * shape.layers
    for w in table(shape):
        stage = w.stage(layers, pipeline)
        assert 0 <= stage < pipeline
        if w.name.startswith("model.embed"):
            assert stage == 0
        if w.name in ("model.norm.weight", "lm_head.weight"):
            assert stage == pipeline - 1
    assert [Weight("", (), layer).stage(4, 2) for layer in range(4)] == [0, 0, 1, 1]
