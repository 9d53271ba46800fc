"""Shape: what a model's config.json says, in our words; a field that we would ignore is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAMILIES = {"Qwen2ForCausalLM": "qwen2", "LlamaForCausalLM": "llama"}


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder-only model.

    Attributes:
        qkv_bias: whether the query, key and value projections have biases.
        tied: whether the output layer is the embedding.
        rope_theta: base of the rotary position embedding.
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

    def padded_vocab(self, tensor: int) -> int:
        """The vocabulary rounded up to what both engines can cut: a multiple of 64 (vLLM's) and of `tensor`."""
        step = 64
        while step % tensor:
            step += 64
        return -(-self.vocab // step) * step


def read_shape(folder: str | Path) -> Shape:
    """Read `folder/config.json`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the architecture, or a setting of it, is not supported; the message names it.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: a model is a Hugging Face folder with config.json")
    return shape_of(json.loads(path.read_text()), str(path))


def shape_of(config: dict[str, Any], where: str = "config.json") -> Shape:
    """The shape that a parsed config.json describes; see `read_shape`."""
    architecture = (config.get("architectures") or ["none"])[0]
    if architecture not in FAMILIES:
        raise ValueError(f"{where}: architecture {architecture} is not supported; supported: {', '.join(FAMILIES)}")
    _refuse_unknown(config, where)
    rope = config.get("rope_parameters") or {}
    return Shape(
        family=FAMILIES[architecture],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        ffn=config["intermediate_size"],
        heads=config["num_attention_heads"],
        kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
        head_dim=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
        vocab=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=FAMILIES[architecture] == "qwen2",
        norm_eps=config["rms_norm_eps"],
        rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        max_positions=config["max_position_embeddings"],
    )


def _refuse_unknown(config: dict[str, Any], where: str) -> None:
    """Settings that change the computation and that we do not carry out."""
    ropes = [config.get(name) or {} for name in ("rope_parameters", "rope_scaling")]
    kinds = {rope.get("rope_type") or rope.get("type") or "default" for rope in ropes} - {"default"}
    wanted = {
        "hidden_act": (config.get("hidden_act", "silu"), "silu"),
        "rope type": (", ".join(sorted(kinds)) or "default", "default"),
        "use_sliding_window": (bool(config.get("use_sliding_window", False)), False),
        "layer_types": (sorted({"full_attention", *(config.get("layer_types") or [])}), ["full_attention"]),
        "attention_bias": (bool(config.get("attention_bias", False)), False),
        "mlp_bias": (bool(config.get("mlp_bias", False)), False),
        "attention_dropout": (float(config.get("attention_dropout", 0.0)), 0.0),
    }
    for name, (found, supported) in wanted.items():
        if found != supported:
            raise ValueError(f"{where}: {name} = {found!r} is not supported, only {supported!r}")
