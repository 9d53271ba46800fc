"""Models that benchmarks run: shapes, and random weights for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hybridflow.models import ModelShape

SMOLLM2_135M: dict[str, Any] = dict(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, tie_word_embeddings=True,
)  # fmt: skip

# Llama 3's, as its config.json has it.
LLAMA_70B = ModelShape(
    family="llama", layers=80, hidden=8192, ffn=28672, heads=64, kv_heads=8, head_dim=128, vocab=128256, tied=False,
    qkv_bias=False, norm_eps=1e-5, rope_theta=5e5, max_positions=8192,
)  # fmt: skip


def random_model(folder: Path, sizes: dict[str, Any], positions: int) -> Path:
    """Write a Hugging Face folder of a Llama with random weights, the same ones each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(max_position_embeddings=positions, **sizes)).save_pretrained(folder)
    return folder
