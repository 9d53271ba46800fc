"""Fields that a config.json may have. A field that is in none of these lists may change the numbers."""

from __future__ import annotations

from typing import Any

from hybridflow.errors import shown
from hybridflow.json_file import a_number, a_whole

# What `shape_of` carries out or checks.
READ = """
    architectures model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim max_position_embeddings rms_norm_eps tie_word_embeddings rope_theta rope_scaling
    rope_parameters sliding_window layer_types
"""

# What has no part in a forward of the weights, by the reason: any value will do.
HARMLESS = {
    "where the folder comes from, and the format of its weights": """
        transformers_version _name_or_path name_or_path _model_name_or_path _commit_hash dtype torch_dtype
        tokenizer_class unsloth_fixed unsloth_version transformers.js_config is_llama_config use_bfloat16
    """,
    "how weights were initialized, and how a forward may be cut, cached or carried out": """
        initializer_range pretraining_tp use_cache chunk_size_feed_forward attn_implementation torchscript
        _attn_implementation_autoset
    """,
    "from which layer on there would be a sliding window, if it were used": "max_window_layers",
    "tokens with a meaning: the tokenizer tells": """
        bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id
    """,
    "what a forward returns besides logits": "return_dict output_hidden_states output_attentions",
    "heads of other tasks": "id2label label2id num_labels problem_type finetuning_task task_specific_params prefix",
    "encoder-decoders, which none of ours is, and other frameworks": """
        is_decoder cross_attention_hidden_size tie_encoder_decoder tf_legacy_loss
    """,
    "how transformers' generate() samples if it is not told; we always say": """
        max_length max_new_tokens min_length do_sample early_stopping num_beams temperature top_k top_p typical_p
        repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
        num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
        remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens num_beam_groups
        diversity_penalty
    """,
}

# What may be there with one value, the one that we carry out.
FIXED: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "use_sliding_window": False,
    "partial_rotary_factor": 1.0,
    "rope_interleaved": False,
    "use_mrope": False,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
    "quantization_config": None,
}

_KNOWN = {*READ.split(), *FIXED, *(name for names in HARMLESS.values() for name in names.split())}


_WHOLE = """
    vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim
    max_position_embeddings sliding_window
"""
_KINDS: dict[str, tuple[type, str]] = {
    "architectures": (list, "a list of names"),
    "layer_types": (list, "a list of names"),
    "rope_scaling": (dict, "an object"),
    "rope_parameters": (dict, "an object"),
    "tie_word_embeddings": (bool, "true or false"),
}


def refuse_wrong_kinds(config: dict[str, Any], where: str) -> None:
    """Raise ValueError naming a field that we read and whose value is of another kind; null counts as left out."""
    fields = {name: value for name, value in config.items() if value is not None}
    for name in _WHOLE.split():
        if name in fields:
            # The table of weights has entries for each layer: a broken file must not fill the memory with them.
            at_most = 10_000 if name == "num_hidden_layers" else 2**31 - 1
            a_whole(fields[name], f"{where}: {name}", at_least=1, at_most=at_most)
    for name in ("rms_norm_eps", "rope_theta"):
        if name in fields:
            a_number(fields[name], f"{where}: {name}")
    for name, (kind, wanted) in _KINDS.items():
        value: Any = fields.get(name)
        right = value is None or isinstance(value, kind)
        if not right or (isinstance(value, list) and not all(isinstance(item, str) for item in value)):
            raise ValueError(f"{where}: {name} = {shown(value)}: {wanted} was expected")


def refuse_unsupported(config: dict[str, Any], family: str, where: str) -> None:
    """Raise ValueError naming a field that would change the numbers, its value, and what is supported.

    A field without a value (null) counts as left out.
    """
    fields = {name: value for name, value in config.items() if value is not None}
    for name, only in {**FIXED, "model_type": family}.items():
        if fields.get(name, only) != only:
            raise ValueError(f"{where}: {name} = {shown(fields[name])} is not supported, only {shown(only)}")
    kinds = sorted(set(fields.get("layer_types", [])) - {"full_attention"})
    if kinds:
        raise ValueError(f"{where}: layer_types with {', '.join(kinds)} is not supported, only full_attention")
    unknown = sorted(fields.keys() - _KNOWN)
    if unknown:
        raise ValueError(
            f"{where}: {unknown[0]} = {shown(fields[unknown[0]])} is not supported: this field is not known, and may "
            "change what the model computes; if it does not, set it to null in config.json"
        )
