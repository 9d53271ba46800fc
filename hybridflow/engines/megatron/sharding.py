"""Megatron's sharding of a model: its padding, and where each Hugging Face tensor lives in its parameters. Pure.

Megatron fuses: `linear_qkv` holds, for each key/value head, that head's queries, key and value; `linear_fc1` holds
this rank's gate rows, then its up rows. In both, the part of one Hugging Face tensor is `[blocks, rows, ...]` inside
`[blocks, all rows, ...]`, so `hf_view` is a view, never a copy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hybridflow.engines.sharding import TensorSharding
from hybridflow.models import Along, ModelShape, Weight
from hybridflow.models.weight_table import FIRST
from hybridflow.parallel.layout import Coordinate

if TYPE_CHECKING:
    import torch

PARAMETERS = {
    "input_layernorm": "input_layernorm",
    "self_attn.q_proj": "self_attention.linear_qkv",
    "self_attn.k_proj": "self_attention.linear_qkv",
    "self_attn.v_proj": "self_attention.linear_qkv",
    "self_attn.q_norm": "self_attention.q_layernorm",
    "self_attn.k_norm": "self_attention.k_layernorm",
    "self_attn.o_proj": "self_attention.linear_proj",
    "post_attention_layernorm": "pre_mlp_layernorm",
    "mlp.gate_proj": "mlp.linear_fc1",
    "mlp.up_proj": "mlp.linear_fc1",
    "mlp.down_proj": "mlp.linear_fc2",
}
"""Megatron's module for each Hugging Face module of a layer."""


@dataclass(frozen=True)
class MegatronSharding(TensorSharding):
    """Key/value heads divide over the tensor ranks, and the vocabulary is padded until it does.

    Megatron-core 0.16.1 shares a key/value head among ranks only in its global process groups; roles have their own.
    """

    def padded(self, weight: Weight) -> int:
        """Pad a vocabulary to a multiple of 64 and of the tensor size."""
        if weight.along is Along.vocabulary:
            return padded_vocabulary(self.shape, self.tensor)
        return super().padded(weight)

    def hf_view(self, param: torch.Tensor, weight: Weight, at: Coordinate) -> torch.Tensor:
        """Return the part of a rank's parameter that is this Hugging Face tensor: a view; write to it to load.

        Returns:
            For fused parameters [blocks, rows, ...], which has the elements of the Hugging Face shard in its order;
            otherwise exactly the shard. Reshape the other side to this shape.
        """
        if (fused := self._fused(weight)) is not None:
            blocks, first, count = fused
            return param.view(blocks, -1, *param.shape[1:]).narrow(1, first, count)
        span = self.region(weight, at)
        assert span is not None, f"{weight.name} is not on stage {at.pp}"
        return param if weight.axis is None else param.narrow(weight.axis, 0, span[1] - span[0])

    def _fused(self, weight: Weight) -> tuple[int, int, int] | None:
        """Return the blocks of a rank's fused parameter, and the rows (first, count) of this tensor in each."""
        module = _module(weight)
        if module.startswith("mlp.") and module != "mlp.down_proj":
            rows = self.shape.ffn // self.tensor
            return 1, rows if module == "mlp.up_proj" else 0, rows
        dim = self.shape.head_dim
        queries = self.shape.heads // self.shape.kv_heads * dim
        rows_of = {"q": (0, queries), "k": (queries, dim), "v": (queries + dim, dim)}
        letter = module.removeprefix("self_attn.").removesuffix("_proj")
        return (self.shape.kv_heads // self.tensor, *rows_of[letter]) if letter in rows_of else None


def padded_vocabulary(shape: ModelShape, tensor: int) -> int:
    """Return the rows of an embedding, padding included."""
    step = math.lcm(64, tensor)
    return -(-shape.vocab // step) * step


def parameter(weight: Weight, first_layer: int = 0) -> str:
    """Return the name of the parameter that a weight lives in, on a stage whose first layer has that number."""
    if isinstance(weight.place, int):
        kind = weight.name.rpartition(".")[2]
        return f"decoder.layers.{weight.place - first_layer}.{PARAMETERS[_module(weight)]}.{kind}"
    if weight.place == FIRST:
        return "embedding.word_embeddings.weight"
    return "decoder.final_layernorm.weight" if weight.name == "model.norm.weight" else "output_layer.weight"


def _module(weight: Weight) -> str:
    """Return the path of its Hugging Face module inside a layer; empty outside of layers."""
    if not isinstance(weight.place, int):
        return ""
    return weight.name.removeprefix(f"model.layers.{weight.place}.").rpartition(".")[0]
