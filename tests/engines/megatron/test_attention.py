"""Which attention a platform has, and that TransformerEngine's is given rows as it takes them."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core.extensions import transformer_engine
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from hybridflow.engines.megatron.layer_spec import FusedAttention, PackedAttention, core_attention
from hybridflow.engines.megatron.micro_batches import packed_rows
from hybridflow.parallel.platform import Platform

CPU, CUDA = Platform("cpu", "gloo", True), Platform("cuda", "nccl", False)


class WithEngine(Platform):
    """A GPU with TransformerEngine."""

    transformer_engine = True  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("platform", "dtype", "expected"),
    [
        (CPU, torch.bfloat16, PackedAttention),
        (CUDA, torch.bfloat16, PackedAttention),
        (WithEngine("cuda", "nccl", False), torch.bfloat16, FusedAttention),
        (WithEngine("cuda", "nccl", False), torch.float32, PackedAttention),
    ],
)
def test_which(platform: Platform, dtype: torch.dtype, expected: type) -> None:
    assert core_attention(dtype, platform) is expected


class Thd(nn.Module):
    """Causal attention by the contract of Megatron's `TEDotProductAttention` for packed rows, one row at a time."""

    def __init__(self, *, config: Any, layer_number: int, pg_collection: Any, softmax_scale: float) -> None:
        super().__init__()
        self.scale = softmax_scale

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, *, attn_mask_type: AttnMaskType,
        packed_seq_params: PackedSeqParams,
    ) -> Tensor:  # fmt: skip
        """[T, H, D] and [T, G, D] to [T, H·D]."""
        rows, causal = packed_seq_params, attn_mask_type == AttnMaskType.causal
        assert rows.qkv_format == "thd" and rows.cu_seqlens_q.dtype == torch.int32 and causal
        assert rows.max_seqlen_q == rows.max_seqlen_kv == int(rows.cu_seqlens_kv.diff().max())
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        found = []
        for a, b in rows.cu_seqlens_q.unfold(0, 2, 1).tolist():
            scores = torch.einsum("qhd,khd->hqk", query[a:b], key[a:b]) * self.scale
            seen = torch.ones(b - a, b - a, dtype=torch.bool).tril()
            weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
            found.append(torch.einsum("hqk,khd->qhd", weights, value[a:b]))
        return torch.cat(found).flatten(1)


def test_the_two_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a kernel of plain torch in the place of TransformerEngine's, which needs a GPU."""
    for name in ("transformer_engine", "transformer_engine.pytorch"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(transformer_engine, "TEDotProductAttention", Thd)
    config = TransformerConfig(num_layers=1, hidden_size=64, num_attention_heads=4, num_query_groups=2)
    groups: Any = SimpleNamespace(tp=SimpleNamespace(size=lambda: 1))
    fused = FusedAttention(config=config, layer_number=1, pg_collection=groups, softmax_scale=0.3)
    plain = PackedAttention(config, 1, AttnMaskType.causal, "self", softmax_scale=0.3, pg_collection=groups)
    rows = packed_rows(np.array([0, 5, 6, 15, 17]), torch.device("cpu"))
    torch.manual_seed(0)
    query, key, value = (torch.randn(17, 1, heads, 16, requires_grad=True) for heads in (4, 2, 2))
    found, expected = (layer(query, key, value, None, packed_seq_params=rows) for layer in (fused, plain))
    assert found.shape == expected.shape == (17, 1, 64)
    torch.testing.assert_close(found, expected)
    grads, wanted = (torch.autograd.grad(out.square().sum(), (query, key, value)) for out in (found, expected))
    torch.testing.assert_close(grads, wanted, rtol=1e-4, atol=1e-5)


def test_a_transformer_engine_that_cannot_be_imported_is_not_passed_over() -> None:
    config = TransformerConfig(num_layers=1, hidden_size=64, num_attention_heads=4)
    with pytest.raises(ImportError, match="transformer_engine"):
        FusedAttention(config=config, layer_number=1, pg_collection=SimpleNamespace(tp=None))
