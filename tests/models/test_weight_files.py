"""Reading a folder: no more than the slices that are asked for, and nothing that is ignored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hybridflow.engines.megatron.sharding import MegatronSharding
from hybridflow.models import Head, read_shape, table, weight_files
from hybridflow.models.weight_files import read_slices, refuse_unread, tensor_files
from hybridflow.parallel.layout import Coordinate, Layout
from tests.conftest import GetModel
from tests.models.counting import Counting


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
    sharding = MegatronSharding(shape, layout.tensor, layout.pipeline)
    for at in layout.coordinates:
        plan = sharding.slices(at)
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
    for at in Layout(2, 2).coordinates:
        plan = MegatronSharding(shape, 2, 2).slices(at)
        found = list(read_slices(tmp_path, plan))
        assert [part for part, _ in found] == plan
        for part, values in found:
            axis = part.weight.axis or 0
            assert torch.equal(values, whole[part.weight.name].narrow(axis, part.span[0], values.shape[axis]))


def test_what_a_folder_lacks_or_has_in_another_shape_is_said(tmp_path: Path, model: Path) -> None:
    plan = MegatronSharding(read_shape(model)).slices(Coordinate())
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


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_that_are_not_finite_are_said(tmp_path: Path, model: Path, value: float, dtype: torch.dtype) -> None:
    weights = {name: values.to(dtype) for name, values in load_file(model / "model.safetensors").items()}
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = value
    shutil.copy(model / "config.json", tmp_path)
    save_file(weights, tmp_path / "model.safetensors")
    plan = MegatronSharding(read_shape(tmp_path)).slices(Coordinate())
    with pytest.raises(ValueError, match=r"down_proj\.weight has values that are not finite: nan or inf"):
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
    refuse_unread(tmp_path, shape, head=Head.value)
    write("model.layers.0.self_attn.o_proj.bias")
    with pytest.raises(ValueError, match=r"such as 'model\.layers\.0\.self_attn\.o_proj\.bias' \(1 in all\)"):
        refuse_unread(tmp_path, shape)
    write("value_head.weight")
    refuse_unread(tmp_path, shape, head=Head.value)
    with pytest.raises(ValueError, match="value_head"):
        refuse_unread(tmp_path, shape)
