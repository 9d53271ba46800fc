"""Megatron's cut: every element has exactly one place on the ranks, and a rank loads what fills its parameters."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter
from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2Config

from hybridflow.engines.megatron.sharding import MegatronSharding, padded_vocabulary, parameter
from hybridflow.models import Along, Head, ModelShape, Weight, table
from hybridflow.models.model_shape import shape_of
from hybridflow.models.weight_files import Slice
from hybridflow.parallel.layout import Coordinate, Layout


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
        "word_embeddings.weight": (padded_vocabulary(shape, tensor) // tensor, shape.hidden),
        "output_layer.weight": (padded_vocabulary(shape, tensor) // tensor, shape.hidden),
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


@given(shapes(), st.sampled_from([1, 2, 4]))
def test_views_cover_every_element_exactly_once(shape: ModelShape, tensor: int) -> None:
    """Number all elements of all ranks' parameters: the views must hold each number once, but for the padding."""
    sharding, weights = MegatronSharding(shape, tensor), table(shape)
    params = sorted({parameter(weight) for weight in weights})
    for param in params:
        size = math.prod(megatron_shape(shape, param, tensor))
        held = [
            torch.arange(rank * size, (rank + 1) * size).view(megatron_shape(shape, param, tensor))
            for rank in range(tensor)
        ]
        parts = [weight for weight in weights if parameter(weight) == param]
        cut = parts[0].axis is not None
        seen = [
            sharding.hf_view(held[r], w, Coordinate(r)).flatten() for r in range(tensor if cut else 1) for w in parts
        ]
        numbers = torch.cat(seen)
        assert len(numbers) == len(numbers.unique()) == sum(math.prod(weight.shape) for weight in parts)
        padding = padded_vocabulary(shape, tensor) - shape.vocab if parts[0].along is Along.vocabulary else 0
        assert len(numbers) + padding * shape.hidden == size * (tensor if cut else 1)


@given(shapes(), st.sampled_from([1, 2, 4]))
def test_what_is_written_through_views_comes_back_whole(shape: ModelShape, tensor: int) -> None:
    """Load by views, then read shard by shard at another parameter: the shards, end to end, are the source."""
    sharding, weights = MegatronSharding(shape, tensor), table(shape)
    source = {w.name: torch.randn(w.shape) for w in weights}
    params: dict[tuple[str, int], torch.Tensor] = {}
    for rank in range(tensor):
        for w in weights:
            name = parameter(w)
            param = params.setdefault((name, rank), torch.full(megatron_shape(shape, name, tensor), torch.nan))
            target = sharding.hf_view(param, w, Coordinate(rank))
            target.copy_(part(source[w.name], w, span(sharding, w, rank)).reshape(target.shape))
    for w in weights:
        shards = [
            sharding.hf_view(params[parameter(w), rank], w, Coordinate(rank)).reshape(
                Slice(w, span(sharding, w, rank)).shape
            )
            for rank in range(tensor)
        ]
        assert torch.equal(shards[0] if w.axis is None else torch.cat(shards, w.axis), source[w.name]), w.name


@given(shapes(), st.sampled_from([1, 2, 4]))
def test_spans_tile_the_axis(shape: ModelShape, tensor: int) -> None:
    sharding = MegatronSharding(shape, tensor)
    for w in table(shape):
        ends = [span(sharding, w, rank) for rank in range(tensor)]
        if w.axis is None:
            assert ends == [(0, w.shape[0])] * tensor
        else:
            assert [0, *(b for _, b in ends)] == [*(a for a, _ in ends), w.shape[w.axis]]


def test_a_view_shares_memory_with_the_parameter() -> None:
    shape = shape_of(Qwen2Config(architectures=["Qwen2ForCausalLM"], num_hidden_layers=1).to_dict())
    key = next(w for w in table(shape) if w.name.endswith("k_proj.bias"))
    param = torch.zeros(megatron_shape(shape, parameter(key), 2))
    MegatronSharding(shape, 2).hf_view(param, key, Coordinate()).fill_(1.0)
    assert param.sum() == key.shape[0] // 2


def span(sharding: MegatronSharding, weight: Weight, rank: int) -> tuple[int, int]:
    """The region of a tensor rank; there is one stage."""
    found = sharding.region(weight, Coordinate(rank))
    assert found is not None
    return found


def part(whole: torch.Tensor, weight: Weight, span: tuple[int, int]) -> torch.Tensor:
    a, b = span
    return whole if weight.axis is None else whole.narrow(weight.axis, a, b - a)


LLAMA_3_70B = shape_of(
    {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 80,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
    }
)
PARAMETERS_70B = 70_553_706_496
LAYOUT_70B = Layout(8, 4)


def plans(shape: ModelShape, layout: Layout, head: Head = Head.lm) -> list[list[Slice]]:
    sharding = MegatronSharding(shape, layout.tensor, layout.pipeline, head)
    return [sharding.slices(at) for at in layout.coordinates]


def assert_each_element_is_read_once(shape: ModelShape, layout: Layout) -> None:
    """By the tensor ranks of one stage together if it is cut, by each of them if not; tied embeddings by two stages."""
    spans: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for rank, plan in enumerate(plans(shape, layout)):
        for part in plan:
            spans.setdefault((part.weight.name, layout.coordinates[rank].pp), []).append(part.span)
    stages = Counter(name for name, _ in spans)
    for weight in table(shape):
        ends = shape.tied and layout.pipeline > 1 and weight.name == "model.embed_tokens.weight"
        assert stages.pop(weight.name) == 1 + ends
        for stage in range(layout.pipeline):
            found = sorted(spans.get((weight.name, stage), []))
            if found and weight.axis is None:
                assert found == [(0, weight.shape[0])] * layout.tensor
            elif found:
                assert [0, *(b for _, b in found)] == [*(a for a, _ in found), weight.shape[weight.axis]]
    assert not stages


@given(shapes(), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.integers(1, 2))
def test_each_element_is_read_once(shape: ModelShape, tensor: int, pipeline: int, data: int) -> None:
    shape = replace(shape, layers=pipeline * shape.layers)
    assert_each_element_is_read_once(shape, Layout(tensor, pipeline))
    for order in ("tp-cp-ep-dp-pp", "cp-ep-dp-tp-pp"):
        layout = Layout(tensor, pipeline, data, order=order)
        for at, plan in zip(layout.coordinates, plans(shape, layout), strict=True):
            one = MegatronSharding(shape, tensor, pipeline)
            assert plan == one.slices(Coordinate(at.tp, at.pp))  # replicas read alike


@given(shapes(), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.sampled_from([Head.lm, Head.value]))
def test_a_plan_fills_a_ranks_parameters(shape: ModelShape, tensor: int, pipeline: int, head: Head) -> None:
    """Every element of its parameters but the vocabulary's padding, which no folder has."""
    shape = replace(shape, layers=pipeline * shape.layers)
    layout, sharding = Layout(tensor, pipeline), MegatronSharding(shape, tensor, pipeline, head)
    for at, plan in zip(layout.coordinates, plans(shape, layout, head), strict=True):
        filled: Counter[str] = Counter()
        for part in plan:
            name = parameter(part.weight)
            whole = megatron_shape(shape, name, tensor)
            if part.weight.name == "value_head.weight":
                whole = part.weight.shape
            view = sharding.hf_view(torch.empty(whole, device="meta"), part.weight, at)
            assert view.numel() == part.elements
            padding = math.prod(whole) - part.elements if part.weight.along is Along.vocabulary else 0
            filled[name] += part.elements + padding
            assert padding <= part.weight.shape[-1] * 64 * tensor
        for param, elements in filled.items():
            if "output_layer" not in param or head is Head.lm:
                assert elements == math.prod(megatron_shape(shape, param, tensor)), param


def test_a_70b_is_planned_without_its_memory() -> None:
    """Llama 3 70B on TP 8 × PP 4, in bfloat16: the bytes of every rank, by hand."""
    assert sum(math.prod(weight.shape) for weight in table(LLAMA_3_70B)) == PARAMETERS_70B
    tracemalloc.start()
    assert_each_element_is_read_once(LLAMA_3_70B, LAYOUT_70B)
    found = [2 * sum(part.elements for part in plan) for plan in plans(LLAMA_3_70B, LAYOUT_70B)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20
    hidden, norms = 8192, 2 * 8192
    layer = hidden * ((64 + 2 * 8) * 128 + 64 * 128 + 3 * 28672) // 8 + norms
    vocabulary = 128256 * hidden // 8
    by_stage = [20 * layer + vocabulary, 20 * layer, 20 * layer, 20 * layer + vocabulary + hidden]
    assert found == [2 * by_stage[at.pp] for at in LAYOUT_70B.coordinates]
    replicated = 2 * 7 * (80 * norms + hidden)  # norms are on all of 8 tensor ranks, and everything else on one
    assert sum(found) == 2 * PARAMETERS_70B + replicated
    assert max(found) < 1.06 * 2 * PARAMETERS_70B / LAYOUT_70B.size


@given(shapes(), st.integers(1, 200_000), st.integers(1, 128))
def test_the_vocabulary_is_padded_to_what_both_engines_cut(shape: ModelShape, vocab: int, tensor: int) -> None:
    padded = padded_vocabulary(replace(shape, vocab=vocab), tensor)
    assert padded >= vocab and padded % 64 == 0 and padded % tensor == 0
    assert padded - vocab < 64 * tensor
