"""Load plans: every element has its readers and no others, from shapes alone; and no more than the plan is read."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hybridflow.models import ModelShape, hf_view, read_shape, table, weight_files
from hybridflow.models.model_shape import shape_of
from hybridflow.models.weight_files import Slice, load_plan, read_slices, refuse_unread, tensor_files
from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel
from tests.models.counting import Counting
from tests.models.test_weight_table import megatron_shape, shapes

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


def build_plans(shape: ModelShape, layout: Layout, head: str = "lm") -> list[list[Slice]]:
    return [load_plan(shape, layout, rank, head=head) for rank in range(layout.size)]


def assert_each_element_is_read_once(shape: ModelShape, layout: Layout) -> None:
    """By the tensor ranks of one stage together if it is cut, by each of them if not; tied embeddings by two stages."""
    spans: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for rank, plan in enumerate(build_plans(shape, layout)):
        for part in plan:
            spans.setdefault((part.weight.name, layout.coordinates[rank].pp), []).append(part.span)
    stages = Counter(name for name, _ in spans)
    for weight in table(shape, layout.tensor):
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
    assert_each_element_is_read_once(shape, Layout(tensor, pipeline))
    for order in ("tp-cp-ep-dp-pp", "cp-ep-dp-tp-pp"):
        layout = Layout(tensor, pipeline, data, order=order)
        for at, plan in zip(layout.coordinates, build_plans(shape, layout), strict=True):
            one = Layout(tensor, pipeline)
            assert plan == load_plan(shape, one, at.pp * tensor + at.tp)  # replicas read alike


@given(shapes(), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.sampled_from(["lm", "value"]))
def test_a_plan_fills_a_ranks_parameters(shape: ModelShape, tensor: int, pipeline: int, head: str) -> None:
    """Every element of its parameters but the vocabulary's padding, which no folder has."""
    layout = Layout(tensor, pipeline)
    for at, plan in zip(layout.coordinates, build_plans(shape, layout, head), strict=True):
        filled: Counter[str] = Counter()
        for part in plan:
            whole = megatron_shape(shape, part.weight.param, tensor)
            if part.weight.name == "value_head.weight":
                whole = part.weight.shape
            view = hf_view(torch.empty(whole, device="meta"), part.weight, tensor, at.tp)
            assert view.numel() == part.elements == math.prod(part.weight.shard_shape(tensor, at.tp))
            padding = 0 if part.weight.padded is None else math.prod(whole) - part.elements
            filled[part.weight.param] += part.elements + padding
            assert padding <= part.weight.shape[-1] * 64 * tensor
        for param, elements in filled.items():
            if "output_layer" not in param or head == "lm":
                assert elements == math.prod(megatron_shape(shape, param, tensor)), param


def test_a_70b_is_planned_without_its_memory() -> None:
    """Llama 3 70B on TP 8 × PP 4, in bfloat16: the bytes of every rank, by hand."""
    assert sum(math.prod(weight.shape) for weight in table(LLAMA_3_70B)) == PARAMETERS_70B
    tracemalloc.start()
    assert_each_element_is_read_once(LLAMA_3_70B, LAYOUT_70B)
    found = [2 * sum(part.elements for part in plan) for plan in build_plans(LLAMA_3_70B, LAYOUT_70B)]
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


@pytest.fixture(params=[{"vocab": 250}, {"architecture": "qwen3", "vocab": 70, "tied": True}], ids=["untied", "tied"])
def model(request: pytest.FixtureRequest, tiny: GetModel) -> Path:
    return tiny(**request.param)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    counting = Counting(weight_files.safe_open)
    monkeypatch.setattr(weight_files, "safe_open", counting)
    yield counting


@pytest.mark.parametrize(
    "layout", [Layout(), Layout(2), Layout(2, 2), Layout(2, 4)], ids=lambda x: f"tp{x.tensor}-pp{x.pipeline}"
)
def test_no_more_than_the_plan_is_read(model: Path, layout: Layout, counted: Counting) -> None:
    """Every byte of the folder once, the norms by each tensor rank and the tied embedding by both ends."""
    shape, total = read_shape(model), 0
    for rank in range(layout.size):
        plan = load_plan(shape, layout, rank)
        for part, values in read_slices(model, plan):
            assert values.numel() == part.elements
        assert counted.taken() == 4 * sum(part.elements for part in plan)
        total += 4 * sum(part.elements for part in plan)
    whole = load_file(model / "model.safetensors")
    again = sum(w.nbytes for name, w in whole.items() if w.dim() == 1 and "proj" not in name) * (layout.tensor - 1)
    if shape.tied and layout.pipeline > 1:
        again += whole["model.embed_tokens.weight"].nbytes
    assert total == sum(w.nbytes for w in whole.values()) + again


def test_slices_of_several_files_are_those_of_one(model: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(set(tensor_files(tmp_path).values())) > 3 and not (tmp_path / "model.safetensors").exists()
    whole, shape = load_file(model / "model.safetensors"), read_shape(tmp_path)
    for rank in range(4):
        plan = load_plan(shape, Layout(2, 2), rank)
        found = list(read_slices(tmp_path, plan))
        assert [part for part, _ in found] == plan
        for part, values in found:
            axis = part.weight.axis or 0
            assert torch.equal(values, whole[part.weight.name].narrow(axis, part.span[0], values.shape[axis]))


def test_what_a_folder_lacks_or_has_in_another_shape_is_said(tmp_path: Path, model: Path) -> None:
    plan = load_plan(read_shape(model), Layout(), 0)
    with pytest.raises(FileNotFoundError, match="only safetensors are read"):
        list(read_slices(tmp_path, plan))
    weights = load_file(model / "model.safetensors")
    down = weights.pop("model.layers.1.mlp.down_proj.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(KeyError, match=r"has no tensor 'model\.layers\.1\.mlp\.down_proj\.weight'"):
        list(read_slices(tmp_path, plan))
    save_file(weights | {"model.layers.1.mlp.down_proj.weight": down.T.contiguous()}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"down_proj\.weight has shape \(256, 128\); by config\.json it is"):
        list(read_slices(tmp_path, plan))


@pytest.mark.parametrize("index", [False, True])
def test_a_tensor_that_would_be_ignored_is_refused(index: bool, tmp_path: Path, model: Path) -> None:
    shape = read_shape(model)

    def write(*more: str) -> None:
        names: dict[str, Any] = {weight.name: torch.zeros(1) for weight in table(shape)}
        names |= {name: torch.zeros(1) for name in more}
        if index:
            (tmp_path / weight_files.INDEX).write_text(
                json.dumps({"weight_map": dict.fromkeys(names, "model.safetensors")})
            )
        else:
            save_file(names, tmp_path / "model.safetensors")

    write("model.layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight")
    refuse_unread(tmp_path, shape)
    refuse_unread(tmp_path, shape, head="value")
    write("model.layers.0.self_attn.o_proj.bias")
    with pytest.raises(ValueError, match=r"such as 'model\.layers\.0\.self_attn\.o_proj\.bias' \(1 in all\)"):
        refuse_unread(tmp_path, shape)
    write("value_head.weight")
    refuse_unread(tmp_path, shape, head="value")
    with pytest.raises(ValueError, match="value_head"):
        refuse_unread(tmp_path, shape)
