"""Shape: read from what transformers writes; a setting that would be ignored is refused by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, Qwen2Config

from hybridflow.models.shape import Shape, read_shape, shape_of

SIZES: dict[str, Any] = dict(
    vocab_size=97,
    hidden_size=96,
    intermediate_size=112,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=77,
    rms_norm_eps=1e-5,
)


def config(architecture: str = "Qwen2ForCausalLM", **settings: Any) -> dict[str, Any]:
    made = Qwen2Config if architecture.startswith("Qwen2") else LlamaConfig
    return made(architectures=[architecture], **{**SIZES, **settings}).to_dict()


@pytest.mark.parametrize(
    ("architecture", "family", "bias"), [("Qwen2ForCausalLM", "qwen2", True), ("LlamaForCausalLM", "llama", False)]
)
@pytest.mark.parametrize("tied", [False, True])
def test_what_transformers_writes_is_read(architecture: str, family: str, bias: bool, tied: bool) -> None:
    written = config(
        architecture, tie_word_embeddings=tied, rope_parameters={"rope_theta": 5e5, "rope_type": "default"}
    )
    assert shape_of(written) == Shape(
        family=family, layers=3, hidden=96, ffn=112, heads=6, kv_heads=2, head_dim=16, vocab=97, tied=tied,
        qkv_bias=bias, norm_eps=1e-5, rope_theta=5e5, max_positions=77,
    )  # fmt: skip


def test_an_older_folder_has_its_rope_base_beside_the_sizes() -> None:
    written = {k: v for k, v in config().items() if k != "rope_parameters"}
    assert shape_of({**written, "rope_theta": 1e6}).rope_theta == 1e6
    assert shape_of(written).rope_theta == 1e4


def test_what_is_left_out_follows_from_the_other_sizes() -> None:
    written = {k: v for k, v in config().items() if k not in ("num_key_value_heads", "head_dim", "tie_word_embeddings")}
    found = shape_of(written)
    assert (found.kv_heads, found.head_dim, found.tied) == (6, 16, False)
    assert shape_of({**written, "head_dim": 32}).head_dim == 32


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window = True"),
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "layer_types"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"mlp_bias": True}, "mlp_bias = True"),
        ({"attention_dropout": 0.1}, "attention_dropout = 0.1"),
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn", "factor": 4.0}}, "rope type = 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope type = 'llama3'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope type = 'linear'"),
        ({"architectures": ["MixtralForCausalLM"]}, "architecture MixtralForCausalLM"),
        ({"architectures": None}, "architecture none"),
    ],
)
def test_an_unsupported_setting_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match="is not supported") as refused:
        shape_of({**config(), **settings}, "here/config.json")
    assert named in str(refused.value) and str(refused.value).startswith("here/config.json: ")


def test_a_folder_is_read_and_a_missing_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a model is a Hugging Face folder with config\.json"):
        read_shape(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config()))
    assert read_shape(tmp_path) == shape_of(config())


@given(st.integers(1, 200_000), st.sampled_from([1, 2, 3, 4, 6, 8, 64, 128]))
def test_the_vocabulary_is_padded_to_what_both_engines_cut(vocab: int, tensor: int) -> None:
    padded = shape_of(config(vocab_size=vocab)).padded_vocab(tensor)
    assert padded >= vocab and padded % 64 == 0 and padded % tensor == 0
    assert padded - vocab < 64 * tensor
