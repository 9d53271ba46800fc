"""The weight table: where each Hugging Face tensor lives in Megatron's parameters. It serves loading, export and refit.

Megatron fuses: `linear_qkv` holds, for each key/value head, that head's queries, key and value; `linear_fc1` holds
this rank's gate rows, then its up rows. In both, the part of one Hugging Face tensor is `[blocks, rows, ...]` inside
`[blocks, all rows, ...]`, so a `Weight` says blocks and rows, and `hf_view` is a view, never a copy.
Every split is contiguous along one axis of the Hugging Face tensor, so shards nest whenever their sizes divide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hybridflow.models.model_shape import ModelShape

if TYPE_CHECKING:
    import torch

FIRST, LAST = "first", "last"
VALUE_HEAD, SCORE_HEAD = "value_head.weight", "score.weight"


@dataclass(frozen=True)
class Weight:
    """Hugging Face tensor and its place.

    Attributes:
        name, shape: in the Hugging Face folder.
        param: Megatron's parameter, with the layer's number in the whole model.
        place: the layer it belongs to, or FIRST or LAST: which pipeline stage has it.
        axis: the axis that tensor parallelism cuts; None if every rank has all of it.
        blocks: blocks of the fused parameter, over all tensor ranks; None: one block a rank.
        rows: (first, count, total) rows of this tensor in a block, in parts of 1 / tensor ranks if blocks is None.
        padded: size of `axis` with the rows that are only padding.
    """

    name: str
    shape: tuple[int, ...]
    param: str
    place: int | str
    axis: int | None = None
    blocks: int | None = None
    rows: tuple[int, int, int] | None = None
    padded: int | None = None

    def span(self, tensor: int, rank: int) -> tuple[int, int]:
        """Return the part [a, b) of `axis` that tensor rank `rank` of `tensor` has; all of it if it is not split."""
        if self.axis is None:
            return 0, self.shape[0]
        whole = self.shape[self.axis]
        share = (self.padded or whole) // tensor
        return min(rank * share, whole), min((rank + 1) * share, whole)

    def shard_shape(self, tensor: int, rank: int) -> tuple[int, ...]:
        """Return the shape of a tensor rank's part."""
        a, b = self.span(tensor, rank)
        axis = self.axis or 0
        return (*self.shape[:axis], b - a, *self.shape[axis + 1 :])

    def stage(self, layers: int, pipeline: int) -> int:
        """Return which of `pipeline` stages has the weight."""
        if isinstance(self.place, int):
            return self.place * pipeline // layers
        return 0 if self.place == FIRST else pipeline - 1


def hf_view(param: torch.Tensor, weight: Weight, tensor: int, rank: int) -> torch.Tensor:
    """View the part of a rank's Megatron parameter that is this Hugging Face tensor; write to it to load.

    Returns:
        For fused parameters [blocks, rows, ...], which has the elements of the Hugging Face shard in its order;
        otherwise exactly the shard. Reshape the other side to this shape.
    """
    if weight.rows is None:
        a, b = weight.span(tensor, rank)
        return param if weight.axis is None else param.narrow(weight.axis, 0, b - a)
    first, count, total = weight.rows
    if weight.blocks is None:
        blocks, scale = 1, tensor
    else:
        blocks, scale = weight.blocks // tensor, 1
    fused = param.view(blocks, total // scale, *param.shape[1:])
    return fused.narrow(1, first // scale, count // scale)


def table(shape: ModelShape, tensor: int = 1, *, head: str = "lm") -> list[Weight]:
    """List every weight of a model.

    Args:
        tensor: the largest tensor parallel size that will cut it; it fixes the vocabulary's padding.
        head: "lm"; "value" for a critic, whose scalar head is not in a Hugging Face causal model; "reward" for a
            reward model, whose scalar head has the name that transformers' sequence classifiers give it.
    """
    vocab, hidden = shape.padded_vocab(tensor), shape.hidden
    found = [
        Weight(
            "model.embed_tokens.weight",
            (shape.vocab, hidden),
            "embedding.word_embeddings.weight",
            FIRST,
            0,
            padded=vocab,
        )
    ]
    for layer in range(shape.layers):
        found += _layer(shape, layer)
    found.append(Weight("model.norm.weight", (hidden,), "decoder.final_layernorm.weight", LAST))
    if head == "lm" and not shape.tied:
        found.append(Weight("lm_head.weight", (shape.vocab, hidden), "output_layer.weight", LAST, 0, padded=vocab))
    if head in ("value", "reward"):
        name = VALUE_HEAD if head == "value" else SCORE_HEAD
        found.append(Weight(name, (1, hidden), "output_layer.weight", LAST))
    return found


def stage_table(shape: ModelShape, tensor: int, pipeline: int, stage: int, *, head: str = "lm") -> list[Weight]:
    """List the weights of one of `pipeline` stages."""
    return [w for w in table(shape, tensor, head=head) if w.stage(shape.layers, pipeline) == stage]


def refuse_training_cut(shape: ModelShape, tensor: int, pipeline: int) -> None:
    """Raise ValueError, naming it, for what Megatron cannot cut so."""
    _refuse_uneven(shape, tensor, pipeline, "training")
    if shape.kv_heads % tensor:
        raise ValueError(
            f"{shape.kv_heads} key/value heads do not divide over tensor size {tensor} of training: Megatron-core "
            "0.16.1 shares a head among ranks only in its global process groups, and a role has groups of its own"
        )


def refuse_generation_cut(shape: ModelShape, tensor: int, pipeline: int) -> None:
    """Raise ValueError, naming it, for what vLLM cannot cut so."""
    _refuse_uneven(shape, tensor, pipeline, "generation")
    if shape.kv_heads % tensor and tensor % shape.kv_heads:
        raise ValueError(f"{shape.kv_heads} key/value heads neither divide nor fill tensor size {tensor} of generation")
    padded = shape.padded_vocab(1)
    if padded % tensor:
        raise ValueError(
            f"a vocabulary of {shape.vocab}, which vLLM pads to {padded}, does not divide over tensor size {tensor} "
            "of generation"
        )


def _refuse_uneven(shape: ModelShape, tensor: int, pipeline: int, where: str) -> None:
    for whole, what, parts, kind in (
        (shape.heads, "attention heads", tensor, "tensor size"),
        (shape.ffn, "feed-forward rows", tensor, "tensor size"),
        (shape.layers, "layers", pipeline, "pipeline size"),
    ):
        if whole % parts:
            raise ValueError(f"{whole} {what} do not divide over {kind} {parts} of {where}")


def _layer(shape: ModelShape, layer: int) -> list[Weight]:
    hf, mg = f"model.layers.{layer}.", f"decoder.layers.{layer}."
    hidden, ffn, dim = shape.hidden, shape.ffn, shape.head_dim
    per_group = shape.heads // shape.kv_heads * dim
    block = per_group + 2 * dim
    qkv = {
        "q": (shape.heads * dim, (0, per_group, block)),
        "k": (shape.kv_heads * dim, (per_group, dim, block)),
        "v": (shape.kv_heads * dim, (per_group + dim, dim, block)),
    }
    found = [Weight(f"{hf}input_layernorm.weight", (hidden,), f"{mg}input_layernorm.weight", layer)]
    for kind in ("weight", "bias") if shape.qkv_bias else ("weight",):
        tail = (hidden,) if kind == "weight" else ()
        for letter, (size, rows) in qkv.items():
            name, param = f"{hf}self_attn.{letter}_proj.{kind}", f"{mg}self_attention.linear_qkv.{kind}"
            found.append(Weight(name, (size, *tail), param, layer, 0, shape.kv_heads, rows))
    for letter in "qk" if shape.qk_norm else "":
        name, param = f"{hf}self_attn.{letter}_norm.weight", f"{mg}self_attention.{letter}_layernorm.weight"
        found.append(Weight(name, (dim,), param, layer))
    out = Weight(
        f"{hf}self_attn.o_proj.weight", (hidden, shape.heads * dim), f"{mg}self_attention.linear_proj.weight", layer, 1
    )
    found += [out, Weight(f"{hf}post_attention_layernorm.weight", (hidden,), f"{mg}pre_mlp_layernorm.weight", layer)]
    for letter, first in (("gate", 0), ("up", ffn)):
        name = f"{hf}mlp.{letter}_proj.weight"
        found.append(Weight(name, (ffn, hidden), f"{mg}mlp.linear_fc1.weight", layer, 0, None, (first, ffn, 2 * ffn)))
    return [*found, Weight(f"{hf}mlp.down_proj.weight", (hidden, ffn), f"{mg}mlp.linear_fc2.weight", layer, 1)]
