"""A GPTModel of our shape on a role's groups, and the scalar head of a critic or a reward model."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel.layers import ColumnParallelLinear
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from hybridflow.engines.megatron.spec import block_spec
from hybridflow.models import Shape
from hybridflow.parallel.groups import Groups
from hybridflow.parallel.platform import platform


def transformer_config(shape: Shape, groups: Groups, dtype: torch.dtype) -> TransformerConfig:
    """Megatron's configuration of a shape.

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
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        **platform().megatron_options(),
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


def build_model(shape: Shape, groups: Groups, config: TransformerConfig, *, head: str = "lm") -> GPTModel:
    """This rank's part of the model; weights are not set. `head` is "lm", "value" or "reward"."""
    model = GPTModel(
        config,
        block_spec(config, groups.at.pp),
        vocab_size=shape.padded_vocab(groups.layout.tensor),
        max_sequence_length=shape.max_positions,
        position_embedding_type="mrope",
        rotary_base=shape.rope_theta,
        share_embeddings_and_output_weights=shape.tied and head == "lm",
        pre_process=groups.first_stage,
        post_process=groups.last_stage,
        parallel_output=True,
        pg_collection=groups.megatron,
    )
    if shape.rope_scaling is not None:  # Megatron has this stretch for another embedding, and with fixed settings
        model.rotary_pos_emb.inv_freq = shape.rope_scaling.stretch(model.rotary_pos_emb.inv_freq)
    if groups.last_stage:
        if head in ("value", "reward"):
            model.output_layer = ScalarHead(shape.hidden, config)
        else:
            model.output_layer.__class__ = Float32Output  # the same parameter under the same name
    return model.to(platform().device)


class Float32Output(ColumnParallelLinear):
    """Megatron's output layer with float32 logits, whatever the model's format.

    Logits rounded to bfloat16 set the log-probs of two engines further apart: 0.032 against 0.029 nats in the mean,
    vLLM against this engine on SmolLM2-135M. MiniMax-M1 (arXiv 2506.13585) keeps its output layer in float32 too.
    """

    def forward(
        self, input_: Tensor, weight: Tensor | None = None, runtime_gather_output: bool | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """[T, 1, H] to [T, 1, V / t] float32."""
        weight = self.weight if weight is None else weight
        return super().forward(input_.float(), weight.float(), runtime_gather_output)


class ScalarHead(nn.Module):
    """Hidden states to one number a token, in place of Megatron's output layer; the same on all tensor ranks."""

    def __init__(self, hidden: int, config: TransformerConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, hidden, dtype=config.params_dtype))
        self.weight.sequence_parallel = config.sequence_parallel
        self.sequence_parallel = config.sequence_parallel

    def forward(self, hidden: Tensor, weight: Any = None, runtime_gather_output: Any = None) -> tuple[Tensor, None]:
        """[T, 1, H] to [T, 1, 1]."""
        return F.linear(hidden, self.weight), None
