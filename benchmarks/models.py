"""Models that benchmarks run: shapes, and random weights for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SMOLLM2_135M: dict[str, Any] = dict(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, tie_word_embeddings=True,
)  # fmt: skip


def random_model(folder: Path, sizes: dict[str, Any], positions: int) -> Path:
    """Write a Hugging Face folder of a Llama with random weights, the same ones each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(max_position_embeddings=positions, **sizes)).save_pretrained(folder)
    return folder
