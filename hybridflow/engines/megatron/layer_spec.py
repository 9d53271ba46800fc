"""Our own layers for Megatron's spec: attention over packed rows, and an RMSNorm that knows sequence parallelism.

They are plain classes passed by `ModuleSpec`. All but `FusedAttention` run the same on a CPU and on CUDA. The rest is
Megatron's local spec everywhere: in TransformerEngine's, a norm's weight belongs to the linear layer after it, under
another name, and what its attention gives is most of what it is for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.utils import divide
from torch import Tensor, nn

from hybridflow.parallel.platform import Platform, platform


@dataclass(frozen=True)
class Bucket:
    """B rows of like length, whose own tokens are attended to together.

    Attributes:
        queries: [B, L] the token at each place of the rows' own tokens (any token where they have ended).
        real: [n] the places, counted in the flattened [B, L], that are tokens.
        keys: [B, K] the token at each place of the whole rows (any token where they have ended). None: the rows share
            nothing with those before them, so these are the queries.
        mask: [B, 1, L, K] float32, or [1, 1, L, K] where it is the same for all rows: 0 where a query sees a key, that
            is up to its own, else −inf. None, without `keys`: the upper left triangle.
    """

    queries: Tensor
    real: Tensor
    keys: Tensor | None = None
    mask: Tensor | None = None


@dataclass
class PackedRows(PackedSeqParams):
    """Packed rows among T tokens, of which each row has those of its own that rows before it have not.

    All layers of a forward share it. `cu_seqlens_q` are where the rows' own tokens begin, `cu_seqlens_kv` where the
    whole rows begin in `key_tokens`.

    Attributes:
        key_tokens: the tokens of the whole rows, end to end; None: rows share nothing, so they are all T as they are.
        buckets: rows of like length are attended to together.
        order: [T] where each token is, in the buckets' tokens end to end.
    """

    key_tokens: Tensor | None = None
    buckets: list[Bucket] = field(default_factory=list)
    order: Tensor | None = None


class ThdMask(Enum):
    """Mask of TransformerEngine's packed rows for which Megatron's `AttnMaskType` has no name.

    Rows with fewer queries than keys: the last query sees all keys. Megatron hands on nothing but the name.
    """

    padding_causal_bottom_right = auto()


class PackedAttention(MegatronModule):
    """Causal attention inside each row of a packed sequence.

    Rows of a bucket are padded on the right, inside this call only; a causal query never sees what follows it, and the
    padded places are dropped. A row that shares its beginning with one before it has queries for its own tokens, and
    keys and values of all of them are gathered; that gives shared tokens the gradients of all rows.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: ProcessGroupCollection | None = None,
    ) -> None:
        super().__init__(config=config)
        assert pg_collection is not None and config.context_parallel_size == 1
        self.tp_group = pg_collection.tp  # Megatron's checkpointing asks for it
        heads = config.num_attention_heads
        groups = config.num_query_groups
        self.gqa = divide(heads, pg_collection.tp.size()) != divide(groups, pg_collection.tp.size())
        self.scale = softmax_scale

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedRows | None = None,
    ) -> Tensor:
        """Attend: [T, 1, H, D] queries, [T, 1, G, D] keys and values to [T, 1, H·D]."""
        assert packed_seq_params is not None and packed_seq_params.order is not None
        qkv = query[:, 0], key[:, 0], value[:, 0]
        outputs = [self._bucket(*qkv, bucket) for bucket in packed_seq_params.buckets]
        return torch.cat(outputs)[packed_seq_params.order].unsqueeze(1)

    def _bucket(self, q: Tensor, k: Tensor, v: Tensor, bucket: Bucket) -> Tensor:
        keys = bucket.queries if bucket.keys is None else bucket.keys
        mask = None if bucket.mask is None else bucket.mask.to(q.dtype)
        padded = [
            _gathered(x, tokens).transpose(1, 2) for x, tokens in ((q, bucket.queries), (k, keys), (v, keys))
        ]  # [B, heads, L or K, D]
        out = F.scaled_dot_product_attention(
            *padded, attn_mask=mask, is_causal=mask is None, scale=self.scale, enable_gqa=self.gqa
        )
        return out.transpose(1, 2).flatten(2).flatten(0, 1)[bucket.real]


def _gathered(states: Tensor, tokens: Tensor) -> Tensor:
    """Take [B, L, heads, D] of [T, heads, D].

    Where tokens come twice their gradients are added one after the other: indexing would add them as threads come.
    """
    return states.index_select(0, tokens.flatten()).unflatten(0, tokens.shape)


class FusedAttention(MegatronModule):
    """Attention by TransformerEngine, whose kernels (flash attention or cuDNN's) take rows end to end as they are."""

    def __init__(self, config: TransformerConfig, pg_collection: ProcessGroupCollection, **options: Any) -> None:
        super().__init__(config=config)
        import transformer_engine.pytorch  # noqa: F401  Megatron would go on without it if it were broken
        from megatron.core.extensions.transformer_engine import TEDotProductAttention

        self.tp_group = pg_collection.tp
        self.kernel = TEDotProductAttention(config=config, pg_collection=pg_collection, **options)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedRows | None = None,
    ) -> Tensor:
        """Attend: [T, 1, H, D] queries, [T, 1, G, D] keys and values to [T, 1, H·D]."""
        assert packed_seq_params is not None
        packed = packed_seq_params
        rows = PackedSeqParams(
            qkv_format="thd",
            cu_seqlens_q=packed.cu_seqlens_q,
            cu_seqlens_kv=packed.cu_seqlens_kv,
            max_seqlen_q=packed.max_seqlen_q,
            max_seqlen_kv=packed.max_seqlen_kv,
        )
        q, k, v = (x.squeeze(1) for x in (query, key, value))
        mask: Enum = AttnMaskType.causal
        if packed.key_tokens is not None:
            k = k.index_select(0, packed.key_tokens)
            v = v.index_select(0, packed.key_tokens)
            mask = ThdMask.padding_causal_bottom_right
        context = self.kernel(q, k, v, None, attn_mask_type=mask, packed_seq_params=rows)
        return context.reshape(len(context), 1, -1)


def core_attention(dtype: torch.dtype, platform: Platform) -> type[MegatronModule]:
    """Choose the attention: TransformerEngine's where there is one; for packed rows it has kernels of 16 bits only."""
    return FusedAttention if platform.transformer_engine and dtype != torch.float32 else PackedAttention


class RMSNorm(nn.RMSNorm):
    """torch's RMSNorm with the mark that makes Megatron all-reduce its gradient under sequence parallelism."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: object) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype, device=platform().device)
        self.weight.sequence_parallel = config.sequence_parallel


def block_spec(config: TransformerConfig, pp_rank: int) -> TransformerBlockSubmodules:
    """Specify the decoder of one pipeline stage: Megatron's local layers with our attention and norms.

    Whatever the hardware, parameters have the same names.
    """
    layer: ModuleSpec = get_gpt_layer_local_spec(normalization="RMSNorm")
    parts = layer.submodules
    parts.self_attention.submodules.core_attention = core_attention(config.params_dtype, platform())
    parts.input_layernorm = parts.pre_mlp_layernorm = RMSNorm
    if config.qk_layernorm:
        parts.self_attention.submodules.q_layernorm = parts.self_attention.submodules.k_layernorm = RMSNorm
    layers = get_num_layers_to_build(config, pp_rank=pp_rank)
    return TransformerBlockSubmodules(layer_specs=[layer] * layers, layer_norm=RMSNorm)
