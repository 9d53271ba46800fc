"""Our own layers for Megatron's spec: attention over packed rows, and an RMSNorm that knows sequence parallelism.

They are plain classes passed by `ModuleSpec`. All but `FusedAttention` run the same on a CPU and on CUDA. The rest is
Megatron's local spec everywhere: in TransformerEngine's, a norm's weight belongs to the linear layer after it, under
another name, and what its attention gives is most of what it is for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass
class PackedRows(PackedSeqParams):
    """Packed rows among T tokens. All layers of a forward share it.

    Attributes:
        buckets: rows of like length are attended to together. For each bucket of B rows with at most L tokens:
            [B, L] the token at each place (any token where a row has ended), and [n] the places, counted in the
            flattened [B, L], that are tokens.
        order: [T] where each token is, in the buckets' tokens end to end.
    """

    buckets: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    order: Tensor | None = None


class PackedAttention(MegatronModule):
    """Causal attention inside each row of a packed sequence.

    Rows of a bucket are padded on the right, inside this call only; a causal query never sees what follows it, so no
    mask is needed and the padded places are dropped.
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
        q = query[:, 0]
        k = key[:, 0]
        v = value[:, 0]
        outputs = [self._bucket(q, k, v, tokens, real) for tokens, real in packed_seq_params.buckets]
        return torch.cat(outputs)[packed_seq_params.order].unsqueeze(1)

    def _bucket(self, q: Tensor, k: Tensor, v: Tensor, tokens: Tensor, real: Tensor) -> Tensor:
        padded = [x[tokens].transpose(1, 2) for x in (q, k, v)]  # [B, heads, L, D]
        out = F.scaled_dot_product_attention(*padded, is_causal=True, scale=self.scale, enable_gqa=self.gqa)
        return out.transpose(1, 2).flatten(2).flatten(0, 1)[real]


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
        starts = packed_seq_params.cu_seqlens_q
        longest = packed_seq_params.max_seqlen_q
        rows = PackedSeqParams(
            qkv_format="thd", cu_seqlens_q=starts, cu_seqlens_kv=starts, max_seqlen_q=longest, max_seqlen_kv=longest
        )
        qkv = (x.squeeze(1) for x in (query, key, value))
        context = self.kernel(*qkv, None, attn_mask_type=AttnMaskType.causal, packed_seq_params=rows)
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
