"""The weight table: names and shapes are transformers', and every element has exactly one place on the ranks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

from hybridflow.models import ModelShape, Weight, hf_view, table
from hybridflow.models.model_shape import shape_of


@st.composite
def shapes(draw: st.DrawFn) -> ModelShape:
    """Shapes that 4 tensor ranks can cut."""
    kv_heads, per_group, head_dim = 4 * draw(st.integers(1, 2)), draw(st.integers(1, 3)), 2 * draw(st.integers(1, 2))
    return ModelShape(
        family="any",
        layers=draw(st.integers(1, 2)),
        hidden=draw(st.integers(1, 6)),
        ffn=4 * draw(st.integers(1, 3)),
        heads=kv_heads * per_group,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=draw(st.integers(1, 200)),
        tied=draw(st.booleans()),
        qkv_bias=draw(st.booleans()),
        norm_eps=1e-6,
        rope_theta=1e4,
        max_positions=16,
        qk_norm=draw(st.booleans()),
    )


def megatron_shape(shape: ModelShape, param: str, tensor: int) -> tuple[int, ...]:
    """The size of a rank's Megatron parameter, from Megatron's own rules for its layers."""
    qkv = (shape.heads + 2 * shape.kv_heads) * shape.head_dim // tensor
    for ending, found in {
        "word_embeddings.weight": (shape.padded_vocab(tensor) // tensor, shape.hidden),
        "output_layer.weight": (shape.padded_vocab(tensor) // tensor, shape.hidden),
        "linear_qkv.weight": (qkv, shape.hidden),
        "linear_qkv.bias": (qkv,),
        "linear_proj.weight": (shape.hidden, shape.heads * shape.head_dim // tensor),
        "linear_fc1.weight": (2 * shape.ffn // tensor, shape.hidden),
        "linear_fc2.weight": (shape.hidden, shape.ffn // tensor),
        "q_layernorm.weight": (shape.head_dim,),
        "k_layernorm.weight": (shape.head_dim,),
        "layernorm.weight": (shape.hidden,),
    }.items():
        if param.endswith(ending):
            return found
    raise AssertionError(param)


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
    lm, value, reward = (table(shape, head=head) for head in ("lm", "value", "reward"))
    assert [w for w in lm if w.name != "lm_head.weight"] == value[:-1] == reward[:-1]
    assert (value[-1].name, value[-1].shape, value[-1].axis) == ("value_head.weight", (1, shape.hidden), None)
    assert reward[-1] == replace(value[-1], name="score.weight")


@given(shapes(), st.sampled_from([1, 2, 4]))
def test_views_cover_every_element_exactly_once(shape: ModelShape, tensor: int) -> None:
    """Number all elements of all ranks' parameters: the views must hold each number once, but for the padding."""
    weights = table(shape, tensor)
    params = sorted({weight.param for weight in weights})
    for param in params:
        size = math.prod(megatron_shape(shape, param, tensor))
        held = [
            torch.arange(rank * size, (rank + 1) * size).view(megatron_shape(shape, param, tensor))
            for rank in range(tensor)
        ]
        parts = [weight for weight in weights if weight.param == param]
        cut = parts[0].axis is not None
        seen = [hf_view(held[r], w, tensor, r).flatten() for r in range(tensor if cut else 1) for w in parts]
        numbers = torch.cat(seen)
        assert len(numbers) == len(numbers.unique()) == sum(math.prod(weight.shape) for weight in parts)
        padding = (parts[0].padded or shape.vocab) - shape.vocab if parts[0].padded else 0
        assert len(numbers) + padding * shape.hidden == size * (tensor if cut else 1)


@given(shapes(), st.sampled_from([1, 2, 4]))
def test_what_is_written_through_views_comes_back_whole(shape: ModelShape, tensor: int) -> None:
    """Load by views, then read shard by shard at another parameter: the shards, end to end, are the source."""
    weights = table(shape, tensor)
    source = {w.name: torch.randn(w.shape) for w in weights}
    params: dict[tuple[str, int], torch.Tensor] = {}
    for rank in range(tensor):
        for w in weights:
            param = params.setdefault((w.param, rank), torch.full(megatron_shape(shape, w.param, tensor), torch.nan))
            target = hf_view(param, w, tensor, rank)
            target.copy_(part(source[w.name], w, tensor, rank).reshape(target.shape))
    for w in weights:
        shards = [
            hf_view(params[w.param, rank], w, tensor, rank).reshape(w.shard_shape(tensor, rank))
            for rank in range(tensor)
        ]
        assert torch.equal(shards[0] if w.axis is None else torch.cat(shards, w.axis), source[w.name]), w.name


@given(shapes(), st.sampled_from([1, 2, 4]))
def test_spans_tile_the_axis(shape: ModelShape, tensor: int) -> None:
    for w in table(shape, tensor):
        ends = [w.span(tensor, rank) for rank in range(tensor)]
        if w.axis is None:
            assert ends == [(0, w.shape[0])] * tensor
        else:
            assert [0, *(b for _, b in ends)] == [*(a for a, _ in ends), w.shape[w.axis]]


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
    assert [Weight("", (), "", layer).stage(4, 2) for layer in range(4)] == [0, 0, 1, 1]


def test_a_view_shares_memory_with_the_parameter() -> None:
    shape = shape_of(Qwen2Config(architectures=["Qwen2ForCausalLM"], num_hidden_layers=1).to_dict())
    key = next(w for w in table(shape) if w.name.endswith("k_proj.bias"))
    param = torch.zeros(megatron_shape(shape, key.param, 2))
    hf_view(param, key, 2, 0).fill_(1.0)
    assert param.sum() == key.shape[0] // 2


def part(whole: torch.Tensor, weight: Weight, tensor: int, rank: int) -> torch.Tensor:
    a, b = weight.span(tensor, rank)
    return whole if weight.axis is None else whole.narrow(weight.axis, a, b - a)
