"""GPTModel of our shape on a role's groups, and the scalar head of a critic or a reward model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel.layers import ColumnParallelLinear
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from hybridflow.config.schema import Recompute
from hybridflow.engines.megatron.layer_spec import block_spec
from hybridflow.engines.megatron.sharding import MegatronSharding, padded_vocabulary
from hybridflow.models import Head, ModelShape
from hybridflow.parallel.platform import platform
from hybridflow.parallel.process_groups import Groups

# What is computed again in the backward pass, not kept: nothing, the attention of each layer, or each layer.
RECOMPUTE: Mapping[Recompute, dict[str, Any]] = {
    Recompute.none: {},
    Recompute.selective: {"recompute_granularity": "selective", "recompute_modules": ["core_attn"]},
    Recompute.full: {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1},
}


def transformer_config(
    shape: ModelShape,
    groups: Groups,
    dtype: torch.dtype,
    *,
    sequence: bool = False,
    recompute: Recompute = Recompute.none,
) -> TransformerConfig:
    """Return Megatron's configuration of a shape.

    With `sequence`, what lies between the sharded layers is split over the tensor ranks along the tokens (sequence
    parallelism, arXiv 2205.05198); with one tensor rank there is nothing to split.

    The fusions are off because they are CUDA kernels or, for the cross entropy, cast gradients to bf16.
    `calculate_per_token_loss` makes gradients a plain sum over micro-batches and data parallelism: our losses carry
    their global weights already. `alltoall` is what `variable_seq_lengths` asks for, also of dense models.
    """
    return TransformerConfig(
        num_layers=shape.layers,
        hidden_size=shape.hidden,
        ffn_hidden_size=shape.ffn,
        num_attention_heads=shape.heads,
        num_query_groups=shape.kv_heads,
        kv_channels=shape.head_dim,
        normalization="RMSNorm",
        layernorm_epsilon=shape.norm_eps,
        gated_linear_unit=True,
        activation_func=F.silu,
        add_bias_linear=False,
        add_qkv_bias=shape.qkv_bias,
        qk_layernorm=shape.qk_norm,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        mrope_section=[shape.head_dim // 2, 0, 0],
        tensor_model_parallel_size=groups.layout.tensor,
        pipeline_model_parallel_size=groups.layout.pipeline,
        sequence_parallel=sequence and groups.layout.tensor > 1,
        **RECOMPUTE[recompute],
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        use_cpu_initialization=not platform().accelerated,
        perform_initialization=False,
        masked_softmax_fusion=False,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        apply_rope_fusion=False,
        gradient_accumulation_fusion=False,
        cross_entropy_loss_fusion=False,
        persist_layer_norm=False,
        calculate_per_token_loss=True,
        variable_seq_lengths=True,
        moe_token_dispatcher_type="alltoall",
        batch_p2p_comm=True,
        overlap_p2p_comm=False,
    )


def build_model(
    sharding: MegatronSharding, groups: Groups, collection: ProcessGroupCollection, config: TransformerConfig
) -> GPTModel:
    """Make this rank's part of the model; weights are not set."""
    shape = sharding.shape
    head = sharding.head
    if config.sequence_parallel and parallel_state._GLOBAL_MEMORY_BUFFER is None:
        parallel_state._set_global_memory_buffer()  # made by Megatron only with its global groups
    model = GPTModel(
        config,
        block_spec(config, groups.at.pp),
        vocab_size=padded_vocabulary(shape, sharding.tensor),
        max_sequence_length=shape.max_positions,
        position_embedding_type="mrope",
        rotary_base=shape.rope_theta,
        share_embeddings_and_output_weights=shape.tied and head is Head.lm,
        pre_process=groups.first_stage,
        post_process=groups.last_stage,
        parallel_output=True,
        pg_collection=collection,
    )
    if shape.rope_scaling is not None:  # Megatron has this stretch for another embedding, and with fixed settings
        model.rotary_pos_emb.inv_freq = shape.rope_scaling.stretch(model.rotary_pos_emb.inv_freq)
    if groups.last_stage:
        if head is Head.lm:
            model.output_layer.__class__ = HiddenOutput  # the same parameter under the same name
        else:
            model.output_layer = ScalarHead(shape.hidden, config, groups.tp)
    return model.to(platform().device)


def output_weight(model: GPTModel) -> Tensor:
    """Return this rank's part [V / t, H] of the output layer, on the last stage; it may be the embedding's."""
    tied = model.share_embeddings_and_output_weights
    return model.shared_embedding_or_output_weight() if tied else model.output_layer.weight


class HiddenOutput(ColumnParallelLinear):
    """Megatron's output layer, which gives the hidden states of all tokens: logits are made in chunks of them.

    `token_statistics` does so, with this layer's weight.
    """

    def forward(
        self, input_: Tensor, weight: Tensor | None = None, runtime_gather_output: bool | None = None
    ) -> tuple[Tensor, None]:
        """Return [T, 1, H] float32 of [T, 1, H], or under sequence parallelism of [T / t, 1, H]."""
        # Flat on the way, so that the gradient comes back with the strides of a new tensor. From Megatron's last
        # transposition it has others, layers hand them on, and torch then multiplies a weight with each token alone.
        states = input_.flatten(0, 1).float().unsqueeze(1)
        if self.sequence_parallel:
            return gather_from_sequence_parallel_region(states, group=self.tp_group), None
        return copy_to_tensor_model_parallel_region(states, group=self.tp_group), None


class ScalarHead(nn.Module):
    """Hidden states to one number a token, in place of Megatron's output layer; the same on all tensor ranks."""

    def __init__(self, hidden: int, config: TransformerConfig, tp_group: dist.ProcessGroup) -> None:
        super().__init__()
        self.tp_group = tp_group
        self.weight = nn.Parameter(torch.zeros(1, hidden, dtype=config.params_dtype))
        self.weight.sequence_parallel = config.sequence_parallel
        self.sequence_parallel = config.sequence_parallel

    def forward(self, hidden: Tensor, weight: Any = None, runtime_gather_output: Any = None) -> tuple[Tensor, None]:
        """Map [T, 1, H], or under sequence parallelism [T / t, 1, H], to [T, 1, 1] float32, whatever the model's
        format.

        Rounded to bfloat16, values and scores would have three digits: too few to tell good responses apart.
        """
        values = F.linear(hidden.float(), self.weight.float())
        if self.sequence_parallel:  # what follows is done by all ranks alike, so each takes its part of the gradient
            values = gather_from_sequence_parallel_region(
                values, tensor_parallel_output_grad=False, group=self.tp_group
            )
        return values, None
