"""A tiny random model whose every weight shows in its logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ALPHABET = "0123456789+=-*/ .?abcdefghijklmnopqrstuvwxyz"

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def tiny_model(
    folder: str | Path,
    *,
    layers: int = 4,
    hidden: int = 128,
    heads: int = 4,
    kv_heads: int = 2,
    vocab: int | None = None,
    tied: bool = False,
    seed: int = 0,
    architecture: str = "qwen2",
    llama3_rope: bool = False,
    positions: int = 256,
) -> Path:
    """Write a float32 model of the `llama`, `mistral`, `qwen2` or `qwen3` kind with a char tokenizer over `ALPHABET`.

    Heads of a `qwen3` are twice as large as hidden / heads, as that architecture allows.

    Norms and biases are moved off 1 and 0, and weights are large enough that logits are not flat; so a weight that
    is lost, stale or in the wrong place changes the logits visibly.

    Args:
        vocab: rows of the embedding, at least the tokenizer's; None: as many.
        llama3_rope: stretch the rotary frequencies as Llama 3.1 does, from a context of 32 tokens, so that some
            frequencies stay, some are divided and some are in between.
        positions: tokens of a sequence, at most.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from hybridflow.tasks.tokenizer import char_tokenizer

    tokenizer = char_tokenizer(ALPHABET, max_tokens=256)
    sizes: dict[str, Any] = dict(
        vocab_size=vocab or len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
    )
    assert sizes["vocab_size"] >= len(tokenizer) and hidden % heads == 0 and hidden // heads >= 32
    if architecture == "qwen3":
        sizes["head_dim"] = 2 * hidden // heads
    if architecture == "mistral":
        sizes["sliding_window"] = None
    if llama3_rope:
        sizes["rope_parameters"] = LLAMA3_ROPE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes))
        _perturb(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def _perturb(model: Any) -> None:
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
            elif name.endswith("bias"):
                weight.copy_(0.2 * torch.randn_like(weight))
            elif "embed_tokens" in name or "lm_head" in name:
                weight.copy_(torch.randn_like(weight) * 2 / weight.shape[1] ** 0.5)
            else:
                weight.copy_(torch.randn_like(weight) / weight.shape[1] ** 0.5)
