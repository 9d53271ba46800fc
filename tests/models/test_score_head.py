"""Reward models in transformers' words: what it writes is read, what we write it reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from hybridflow.engines.sharding import TensorSharding
from hybridflow.models import Head, ModelShape, read_shape, table
from hybridflow.models.model_shape import FAMILIES, shape_of
from hybridflow.models.score_head import as_language_model, as_scorer
from hybridflow.models.weight_files import Slice, in_folder, read_slices, refuse_unread
from hybridflow.parallel.layout import Coordinate

SIZES: dict[str, Any] = dict(
    vocab_size=20, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, head_dim=16, eos_token_id=1, pad_token_id=0,
)  # fmt: skip
NAMES = {family.name: architecture for architecture, family in FAMILIES.items()}


def build_config(family: str = "qwen2", **settings: Any) -> dict[str, Any]:
    found = AutoConfig.for_model(family, architectures=[NAMES[family]], **{**SIZES, **settings}).to_dict()
    return {**found, "sliding_window": None}


def slices(own: ModelShape) -> list[Slice]:
    return TensorSharding(own, head=Head.reward).slices(Coordinate())


def build_shape(**settings: Any) -> ModelShape:
    return shape_of(build_config(**settings))


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("tied", [False, True])
def test_what_transformers_writes_is_read(family: str, tied: bool, tmp_path: Path) -> None:
    language_model = build_config(family, tie_word_embeddings=tied)
    made = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**as_scorer(language_model)))
    made.save_pretrained(tmp_path)
    found = read_shape(tmp_path)
    assert found == replace(shape_of(language_model), head=Head.reward)
    assert {w.name: w.shape for w in table(found, head=Head.reward)} == {
        name: tuple(tensor.shape) for name, tensor in made.state_dict().items()
    }
    refuse_unread(tmp_path, found, head=Head.reward)
    refuse_unread(tmp_path, found, head=Head.value)
    with pytest.raises(ValueError, match=r"score\.weight"):
        refuse_unread(tmp_path, found, head=Head.lm)


def test_there_and_back() -> None:
    assert {**as_language_model(as_scorer(build_config())), "id2label": None, "label2id": None} == {
        **build_config(),
        "id2label": None,
        "label2id": None,
    }


@pytest.mark.parametrize("settings", [{}, {"id2label": {"0": "A", "1": "B"}}, {"num_labels": 3}])
def test_another_number_of_labels_is_refused(settings: dict[str, Any]) -> None:
    """transformers leaves out `id2label` where there are two."""
    written = {**build_config(), "architectures": ["Qwen2ForSequenceClassification"], "id2label": None, **settings}
    with pytest.raises(ValueError, match=r"num_labels = [23] is not supported, only 1"):
        shape_of(written, "here")


@pytest.mark.parametrize(
    ("end", "padding", "written"), [(1, 0, 0), (1, 1, None), ([3, 1], 1, None), (None, None, None)]
)
def test_padding_that_is_an_end_is_left_out(end: Any, padding: Any, written: Any) -> None:
    """transformers would take the token before such an end for the last of the row."""
    assert as_scorer(build_config(eos_token_id=end, pad_token_id=padding))["pad_token_id"] == written


def test_only_a_reward_models_folder_has_a_score_to_read() -> None:
    """Its place is in either plan, as a checkpoint has it whatever the run started from."""
    shapes = [replace(build_shape(), head=head) for head in (Head.lm, Head.reward)]
    language_model, scorer = (slices(own) for own in shapes)
    assert language_model == scorer == in_folder(shapes[1], scorer)
    assert scorer[-1].weight.name == "score.weight"
    assert in_folder(shapes[0], language_model) == scorer[:-1]


def test_a_reward_model_without_its_score_is_an_error(tmp_path: Path) -> None:
    own = replace(build_shape(), head=Head.reward)
    weights = [weight for weight in table(own, head=Head.reward) if weight.name != "score.weight"]
    save_file({weight.name: torch.zeros(weight.shape) for weight in weights}, tmp_path / "model.safetensors")
    with pytest.raises(KeyError, match=r"no tensor 'score\.weight'"):
        list(read_slices(tmp_path, in_folder(own, slices(own))))
