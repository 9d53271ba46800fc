"""A tiny random model whose every weight shows in its logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ALPHABET = "0123456789+=-*/ .?abcdefghijklmnopqrstuvwxyz"


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
) -> Path:
    """Write a float32 model of the `qwen2` or `llama` architecture with a char tokenizer over `ALPHABET`.

    Norms and biases are moved off 1 and 0, and weights are large enough that logits are not flat; so a weight that
    is lost, stale or in the wrong place changes the logits visibly.

    Args:
        vocab: rows of the embedding, at least the tokenizer's; None: as many.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    from hybridflow.tasks.tokenizer import char_tokenizer

    tokenizer = char_tokenizer(ALPHABET, max_tokens=256)
    sizes: dict[str, Any] = dict(
        vocab_size=vocab or len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
    )
    assert sizes["vocab_size"] >= len(tokenizer) and hidden % heads == 0 and hidden // heads >= 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture == "qwen2":
            model: Any = Qwen2ForCausalLM(Qwen2Config(**sizes))
        else:
            assert architecture == "llama", architecture
            model = LlamaForCausalLM(LlamaConfig(**sizes))
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
