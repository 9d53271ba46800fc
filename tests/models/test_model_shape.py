"""ModelShape: read from what transformers writes, of today and of earlier; what would be ignored is refused."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig

from hybridflow.models.model_shape import FAMILIES, ModelShape, read_shape, shape_of
from hybridflow.models.rope import Llama3Rope

ARCHITECTURES = {family.name: architecture for architecture, family in FAMILIES.items()}
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
LLAMA3 = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def build_config(family: str = "qwen2", **settings: Any) -> dict[str, Any]:
    return AutoConfig.for_model(family, architectures=[ARCHITECTURES[family]], **{**SIZES, **settings}).to_dict()


# Configs as they were published, most of them by transformers 4.
LLAMA_1 = {
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 2048,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "pad_token_id": 0, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.28.0", "use_cache": True,
    "vocab_size": 32000,
}  # fmt: skip
LLAMA_3_2_1B = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
    "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": False,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
    "pretraining_tp": 1, "rms_norm_eps": 1e-5, "rope_scaling": {**LLAMA3, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.45.0",
    "use_cache": True, "vocab_size": 128256,
}  # fmt: skip
QWEN_2_5_7B = {
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643,
    "hidden_act": "silu", "hidden_size": 3584, "initializer_range": 0.02, "intermediate_size": 18944,
    "max_position_embeddings": 131072, "max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 28,
    "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "sliding_window": 131072, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
    "transformers_version": "4.40.1", "use_mrope": False, "use_sliding_window": False, "vocab_size": 152064,
}  # fmt: skip
QWEN_3_0_6B = {
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02,
    "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
    "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-6,
    "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False,
    "vocab_size": 151936,
}  # fmt: skip
SMOLLM2_135M = {  # read from a GGUF by transformers 5
    "_model_name_or_path": "Smollm2 135M 8k Lc100K Mix1 Ep2", "architectures": ["LlamaForCausalLM"],
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1, "dtype": "bfloat16", "eos_token_id": 2,
    "head_dim": 64, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.02, "intermediate_size": 1536,
    "max_position_embeddings": 8192, "mlp_bias": False, "model_type": "llama", "num_attention_heads": 9,
    "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"}, "tie_word_embeddings": True,
    "transformers_version": "5.19.0", "unk_token_id": 0, "use_cache": True, "vocab_size": 49152,
}  # fmt: skip
MISTRAL_7B_3 = {
    "architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "sliding_window": None,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.42.0.dev0", "use_cache": True,
    "vocab_size": 32768,
}  # fmt: skip


@pytest.mark.parametrize("family", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_what_transformers_writes_is_read(family: str, tied: bool, tmp_path: Path) -> None:
    made = AutoConfig.for_model(
        family, architectures=[ARCHITECTURES[family]], **SIZES, tie_word_embeddings=tied, dtype="bfloat16",
        head_dim=16, rope_parameters={"rope_theta": 5e5, "rope_type": "default"},
    )  # fmt: skip
    expected = ModelShape(
        family=family, layers=3, hidden=96, ffn=112, heads=6, kv_heads=2, head_dim=16, vocab=97, tied=tied,
        qkv_bias=family == "qwen2", norm_eps=1e-5, rope_theta=5e5, max_positions=77, qk_norm=family == "qwen3",
    )  # fmt: skip
    made.save_pretrained(tmp_path)
    assert read_shape(tmp_path) == expected
    made.to_json_file(tmp_path / "config.json", use_diff=False)  # also with what is at its default
    assert read_shape(tmp_path) == expected


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (LLAMA_1, ModelShape("llama", 32, 4096, 11008, 32, 32, 128, 32000, False, False, 1e-6, 1e4, 2048)),
        (
            LLAMA_3_2_1B,
            ModelShape(
                "llama", 16, 2048, 8192, 32, 8, 64, 128256, True, False, 1e-5, 5e5, 131072,
                rope_scaling=Llama3Rope(32.0, 1.0, 4.0, 8192),
            ),
        ),
        (QWEN_2_5_7B, ModelShape("qwen2", 28, 3584, 18944, 28, 4, 128, 152064, False, True, 1e-6, 1e6, 131072)),
        (
            QWEN_3_0_6B,
            ModelShape("qwen3", 28, 1024, 3072, 16, 8, 128, 151936, True, False, 1e-6, 1e6, 40960, qk_norm=True),
        ),
        (SMOLLM2_135M, ModelShape("llama", 30, 576, 1536, 9, 3, 64, 49152, True, False, 1e-5, 1e5, 8192)),
        (MISTRAL_7B_3, ModelShape("mistral", 32, 4096, 14336, 32, 8, 128, 32768, False, False, 1e-5, 1e6, 32768)),
    ],
    ids=["llama-1", "llama-3.2", "qwen-2.5", "qwen-3", "smollm2", "mistral-0.3"],
)  # fmt: skip
def test_published_configs_are_read(published: dict[str, Any], expected: ModelShape) -> None:
    assert shape_of(published) == expected


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_what_is_left_out_is_what_transformers_takes(family: str) -> None:
    """Except for the sizes that every folder gives: there it is an error."""
    sizes = {"num_attention_heads": 32, "hidden_size": 128}
    given = {name: SIZES[name] for name in SIZES if name != "num_key_value_heads"} | sizes
    left_out = {"architectures": [ARCHITECTURES[family]], **given}
    taken = shape_of(AutoConfig.for_model(family, **left_out).to_dict())
    assert shape_of(left_out) == taken
    assert shape_of({**left_out, "num_key_value_heads": None}) == replace(taken, kv_heads=32)
    for name in given:
        with pytest.raises(ValueError, match=f"{name} is missing"):
            shape_of({key: value for key, value in left_out.items() if key != name})


def test_the_base_of_the_frequencies_is_found_where_it_stands() -> None:
    written = {k: v for k, v in build_config().items() if k != "rope_parameters"}
    assert shape_of({**written, "rope_theta": 1e6}).rope_theta == 1e6
    assert shape_of(written).rope_theta == 1e4
    assert shape_of({**written, "rope_theta": 1e6, "rope_parameters": {"rope_theta": 1e5}}).rope_theta == 1e5


@pytest.mark.parametrize("field", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("kind", ["type", "rope_type"])
def test_the_stretch_of_llama_3_is_read_from_new_and_old_fields(field: str, kind: str) -> None:
    written = {**build_config("llama"), "rope_parameters": None, field: {**LLAMA3, kind: "llama3"}}
    assert shape_of(written).rope_scaling == Llama3Rope(32.0, 1.0, 4.0, 8192)


def test_a_window_is_supported_where_no_row_can_outgrow_it() -> None:
    def window(tokens: int | None) -> ModelShape:
        return shape_of({**build_config("mistral"), "sliding_window": tokens})

    assert window(77) == window(4096) == window(None)
    with pytest.raises(ValueError, match="sliding_window = 76 is not supported below max_position_embeddings = 77"):
        window(76)
    left_out = {name: value for name, value in MISTRAL_7B_3.items() if name != "sliding_window"}
    with pytest.raises(ValueError, match="sliding_window = 4096"):  # what transformers takes then
        shape_of(left_out)
    with pytest.raises(ValueError, match="sliding_window = 5"):  # a Mistral has no such switch
        shape_of({**build_config("mistral"), "sliding_window": 5, "use_sliding_window": False})
    assert shape_of({**build_config("qwen3"), "sliding_window": 5, "use_sliding_window": False}).max_positions == 77


def test_heads_of_their_own_size() -> None:
    assert shape_of(build_config("qwen3", head_dim=32)).head_dim == 32
    assert shape_of({**build_config("qwen2"), "head_dim": 16}).head_dim == 16
    with pytest.raises(ValueError, match="head_dim = 32 is not supported for qwen2, only 16"):
        shape_of({**build_config("qwen2"), "head_dim": 32})


@pytest.mark.parametrize(
    ("family", "sizes", "said"),
    [
        ("llama", {"num_attention_heads": 6, "num_key_value_heads": 4}, "num_key_value_heads = 4 does not divide num_"),
        ("qwen3", {"num_attention_heads": 2, "num_key_value_heads": 4}, "num_key_value_heads = 4 does not divide num_"),
        ("qwen2", {"hidden_size": 130, "num_attention_heads": 4, "head_dim": 32}, "hidden_size = 130 does not divide"),
        ("qwen2", {"hidden_size": 130, "num_attention_heads": 4}, "= 4 heads, and qwen2 has no heads of another size"),
        (
            "llama",
            {"hidden_size": 130, "num_attention_heads": 4, "head_dim": None},
            "hidden_size = 130 does not divide",
        ),
        ("qwen3", {"head_dim": 33}, "heads of 33 numbers are not supported: rotary positions turn pairs"),
        ("llama", {"hidden_size": 132, "num_attention_heads": 4, "head_dim": None}, "heads of 33 numbers"),
    ],
)
def test_heads_that_do_not_fit_together_are_refused(family: str, sizes: dict[str, Any], said: str) -> None:
    given = {**build_config(family), "num_key_value_heads": 2, **sizes}
    with pytest.raises(ValueError, match="heads") as refused:
        shape_of(given, "here/config.json")
    assert said in str(refused.value) and str(refused.value).startswith("here/config.json: ")
    assert shape_of({**build_config("qwen3"), "hidden_size": 130, "head_dim": 34}).head_dim == 34


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported, only 'silu'"),
        ({"use_sliding_window": True}, "use_sliding_window = True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types with sliding_attention"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"mlp_bias": True}, "mlp_bias = True"),
        ({"attention_dropout": 0.1}, "attention_dropout = 0.1 is not supported, only 0.0"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantization_config = {'bits': 4}"),
        ({"model_type": "internlm"}, "model_type = 'internlm'"),
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn", "factor": 4.0}}, "rope type = 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling: rope type = 'linear'"),
        ({"rope_scaling": {"type": "default", "mrope_section": [1]}}, "of type 'default' with mrope_section"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "with full_attention"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "of type 'llama3' with factor is not supported"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0"),
        ({"dual_chunk_attention_config": {"chunk_size": 9}}, "dual_chunk_attention_config"),
        ({"per_layer_config": {"0": {}}}, "per_layer_config"),
        ({"architectures": ["MixtralForCausalLM"]}, "architecture MixtralForCausalLM"),
        ({"architectures": None}, "architecture none"),
    ],
)
def test_an_unsupported_setting_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match="not supported") as refused:
        shape_of({**build_config(), **settings}, "here/config.json")
    assert named in str(refused.value) and str(refused.value).startswith("here/config.json: ")


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_field_that_nobody_knows_is_refused_unless_it_is_null(family: str) -> None:
    assert shape_of({**build_config(family), "new_trick": None}) == shape_of(build_config(family))
    with pytest.raises(ValueError, match="new_trick = 0 is not supported: this field is not known"):
        shape_of({**build_config(family), "new_trick": 0})


def test_what_every_transformers_config_may_have_is_known() -> None:
    """Generic fields, with values of their own, and the ones for sampling that older versions kept there."""
    generic = {field.name: "anything" for field in fields(PreTrainedConfig)}
    fixed = {"architectures", "is_encoder_decoder"}
    sampling = dict.fromkeys(GenerationConfig._get_default_generation_params(), 3)
    new = {name for name in sampling if "assist" in name or "lookbehind" in name or "cutoff" in name} | {
        "encoder_repetition_penalty"  # these never were in a config.json
    }
    written = build_config() | {name: value for name, value in generic.items() if name not in fixed}
    written |= {name: value for name, value in sampling.items() if name not in new}
    assert shape_of(written) == shape_of(build_config())


def test_a_folder_is_read_and_a_missing_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a model is a Hugging Face folder with config\.json"):
        read_shape(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(build_config()))
    assert read_shape(tmp_path) == shape_of(build_config())
