"""Weight table: every tensor of a Hugging Face folder, the layer it belongs to and what its split axis counts.

Every split is contiguous along one axis of the tensor, so shards nest whenever their sizes divide. Where an engine
pads, fuses or copies is its sharding's affair (`hybridflow.engines.sharding`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from hybridflow.models.head import Head
from hybridflow.models.model_shape import ModelShape

FIRST = "first"
LAST = "last"
EMBEDDING = "model.embed_tokens.weight"
OUTPUT = "lm_head.weight"


class Along(StrEnum):
    """Unit that a split axis counts."""

    vocabulary = "vocabulary"
    heads = "heads"
    kv_heads = "kv_heads"
    ffn = "ffn"


@dataclass(frozen=True)
class Weight:
    """Hugging Face tensor and its place.

    Attributes:
        name, shape: in the Hugging Face folder.
        place: the layer it belongs to, or FIRST or LAST: which pipeline stage has it.
        axis: the axis that tensor parallelism cuts; None if every rank has all of it.
        along: what that axis counts.
    """

    name: str
    shape: tuple[int, ...]
    place: int | str
    axis: int | None = None
    along: Along | None = None

    @property
    def width(self) -> int:
        """Numbers at one index of the split axis (of the rows, if the weight is not split)."""
        return math.prod(self.shape) // self.shape[self.axis or 0]

    @property
    def is_tied_copy(self) -> bool:
        """True for the copy of the embedding that is a tied output layer of a last stage."""
        return self.name == EMBEDDING and self.place == LAST

    def with_length(self, length: int) -> tuple[int, ...]:
        """Return its shape with another size of the split axis (of the rows, if the weight is not split)."""
        axis = self.axis or 0
        return (*self.shape[:axis], length, *self.shape[axis + 1 :])

    def stage(self, layers: int, pipeline: int) -> int:
        """Return which of `pipeline` stages has the weight."""
        if isinstance(self.place, int):
            return self.place * pipeline // layers
        return 0 if self.place == FIRST else pipeline - 1


def table(shape: ModelShape, *, head: Head = Head.lm) -> list[Weight]:
    """List every weight of a model."""
    hidden = shape.hidden
    vocabulary = (shape.vocab, hidden)
    weights = [Weight(EMBEDDING, vocabulary, FIRST, 0, Along.vocabulary)]
    for layer in range(shape.layers):
        weights += _layer(shape, layer)
    weights.append(Weight("model.norm.weight", (hidden,), LAST))
    if head.weight is not None:
        weights.append(Weight(head.weight, (1, hidden), LAST))
    elif not shape.tied:
        weights.append(Weight(OUTPUT, vocabulary, LAST, 0, Along.vocabulary))
    return weights


def stage_table(shape: ModelShape, pipeline: int, stage: int, *, head: Head = Head.lm) -> list[Weight]:
    """List the weights of one of `pipeline` stages."""
    weights = [weight for weight in table(shape, head=head) if weight.stage(shape.layers, pipeline) == stage]
    if shape.tied and head is Head.lm and pipeline > 1 and stage == pipeline - 1:
        weights.append(Weight(EMBEDDING, (shape.vocab, shape.hidden), LAST, 0, Along.vocabulary))
    return weights


def _layer(shape: ModelShape, layer: int) -> list[Weight]:
    hidden = shape.hidden
    ffn = shape.ffn
    queries = shape.heads * shape.head_dim
    keys = shape.kv_heads * shape.head_dim
    attention = {"q": (queries, Along.heads), "k": (keys, Along.kv_heads), "v": (keys, Along.kv_heads)}
    name = f"model.layers.{layer}."
    weights = [Weight(f"{name}input_layernorm.weight", (hidden,), layer)]
    for kind in ("weight", "bias") if shape.qkv_bias else ("weight",):
        tail = (hidden,) if kind == "weight" else ()
        for letter, (rows, along) in attention.items():
            weights.append(Weight(f"{name}self_attn.{letter}_proj.{kind}", (rows, *tail), layer, 0, along))
    for letter in "qk" if shape.qk_norm else "":
        weights.append(Weight(f"{name}self_attn.{letter}_norm.weight", (shape.head_dim,), layer))
    return [
        *weights,
        Weight(f"{name}self_attn.o_proj.weight", (hidden, queries), layer, 1, Along.heads),
        Weight(f"{name}post_attention_layernorm.weight", (hidden,), layer),
        Weight(f"{name}mlp.gate_proj.weight", (ffn, hidden), layer, 0, Along.ffn),
        Weight(f"{name}mlp.up_proj.weight", (ffn, hidden), layer, 0, Along.ffn),
        Weight(f"{name}mlp.down_proj.weight", (hidden, ffn), layer, 1, Along.ffn),
    ]
