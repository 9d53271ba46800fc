"""ModelShape: what a model's config.json says, in our words; a field that we would ignore is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridflow.json_file import is_there, read_object
from hybridflow.models.config_fields import refuse_unsupported, refuse_wrong_kinds
from hybridflow.models.head import Head
from hybridflow.models.rope import Llama3Rope, read_rope
from hybridflow.models.score_head import as_language_model, is_scorer


@dataclass(frozen=True)
class Family:
    """Properties of an architecture beyond the sizes in its config.

    Attributes:
        architecture, name: transformers' `architectures` and `model_type`.
        qkv_bias: whether the query, key and value projections have biases.
        qk_norm: whether each head's queries and keys are normalized before the rotation.
        free_head_dim: whether heads may have another size than hidden / heads.
        window_switch: whether `sliding_window` counts only if `use_sliding_window` is set (which we refuse).
        defaults: what transformers takes for a field that is left out (null is not left out).
    """

    architecture: str
    name: str
    qkv_bias: bool = False
    qk_norm: bool = False
    free_head_dim: bool = True
    window_switch: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)


_FAMILIES = (
    Family("LlamaForCausalLM", "llama", defaults={"num_key_value_heads": None}),
    Family("MistralForCausalLM", "mistral", defaults={"num_key_value_heads": 8, "sliding_window": 4096}),
    Family(
        "Qwen2ForCausalLM",
        "qwen2",
        qkv_bias=True,
        free_head_dim=False,  # vLLM takes hidden / heads whatever the config says
        window_switch=True,
        defaults={"num_key_value_heads": 32},
    ),
    Family(
        "Qwen3ForCausalLM",
        "qwen3",
        qk_norm=True,
        window_switch=True,
        defaults={"num_key_value_heads": 32, "head_dim": 128},
    ),
)
FAMILIES = {family.architecture: family for family in _FAMILIES}


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder-only model.

    Attributes:
        qkv_bias, qk_norm: as in `Family`.
        tied: whether the output layer is the embedding.
        rope_theta: base of the rotary position embedding.
        rope_scaling: how its frequencies are stretched; None: not at all.
        head: what the folder has on top: an output layer, or the one score of a reward model.
    """

    family: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    qkv_bias: bool
    norm_eps: float
    rope_theta: float
    max_positions: int
    qk_norm: bool = False
    rope_scaling: Llama3Rope | None = None
    head: Head = Head.lm


def read_shape(folder: str | Path) -> ModelShape:
    """Read `folder/config.json`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the architecture, or a setting of it, is not supported; the message names it.
    """
    path = Path(folder) / "config.json"
    if not is_there(path):
        raise FileNotFoundError(f"{path} does not exist: a model is a Hugging Face folder with config.json")
    return shape_of(read_object(path), str(path))


def shape_of(config: dict[str, Any], where: str = "config.json") -> ModelShape:
    """Return the shape that a parsed config.json describes; see `read_shape`."""
    refuse_wrong_kinds(config, where)
    head = Head.reward if is_scorer(config, where) else Head.lm
    config = as_language_model(config)
    architecture = config["architectures"][0]
    if architecture not in FAMILIES:
        raise ValueError(f"{where}: architecture {architecture} is not supported; supported: {', '.join(FAMILIES)}")
    family = FAMILIES[architecture]
    refuse_unsupported(config, family.name, where)
    config = {**family.defaults, **config}
    theta, scaling = read_rope(config, where)
    if not family.window_switch:
        _refuse_window(config, where)
    heads = _size(config, "num_attention_heads", where)
    hidden = _size(config, "hidden_size", where)
    kv_heads = config["num_key_value_heads"] or heads
    head_dim = config.get("head_dim")
    _refuse_heads(family, hidden, heads, kv_heads, head_dim, where)
    return ModelShape(
        family=family.name,
        layers=_size(config, "num_hidden_layers", where),
        hidden=hidden,
        ffn=_size(config, "intermediate_size", where),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim or hidden // heads,
        vocab=_size(config, "vocab_size", where),
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=family.qkv_bias,
        norm_eps=_size(config, "rms_norm_eps", where),
        rope_theta=theta,
        max_positions=_size(config, "max_position_embeddings", where),
        qk_norm=family.qk_norm,
        rope_scaling=scaling,
        head=head,
    )


def _size(config: dict[str, Any], name: str, where: str) -> Any:
    if config.get(name) is None:
        raise ValueError(f"{where}: {name} is missing, so the model's shape is not known")
    return config[name]


def _refuse_heads(family: Family, hidden: int, heads: int, kv_heads: int, head_dim: int | None, where: str) -> None:
    """Raise ValueError for sizes of heads that do not fit together, or that an engine does not take."""
    if hidden % heads and (head_dim is None or not family.free_head_dim):
        raise ValueError(
            f"{where}: hidden_size = {hidden} does not divide into num_attention_heads = {heads} heads"
            + ("" if family.free_head_dim else f", and {family.name} has no heads of another size")
        )
    size = head_dim or hidden // heads
    if size * heads != hidden and not family.free_head_dim:
        raise ValueError(f"{where}: head_dim = {size} is not supported for {family.name}, only {hidden // heads}")
    if heads % kv_heads:
        raise ValueError(
            f"{where}: num_key_value_heads = {kv_heads} does not divide num_attention_heads = {heads}; each key/value "
            "head serves equally many heads"
        )
    if size % 2:
        raise ValueError(
            f"{where}: heads of {size} numbers are not supported: rotary positions turn pairs of numbers, so "
            "head_dim must be even"
        )


def _refuse_window(config: dict[str, Any], where: str) -> None:
    """Raise ValueError for a window that some row can outgrow; any other changes nothing."""
    window = config.get("sliding_window")
    positions = _size(config, "max_position_embeddings", where)
    if window is not None and window < positions:
        raise ValueError(
            f"{where}: sliding_window = {window!r} is not supported below max_position_embeddings = {positions}; "
            f"if no row of yours is longer than {window} tokens, set it to null in config.json"
        )
