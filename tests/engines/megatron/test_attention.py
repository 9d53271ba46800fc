"""Which attention a platform has, and that TransformerEngine's is given rows as it takes them."""

from __future__ import annotations

import sys
from enum import Enum
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

from hybridflow.batch.row_trees import token_places
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
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, *, attn_mask_type: Enum,
        packed_seq_params: PackedSeqParams,
    ) -> Tensor:  # fmt: skip
        """[T, H, D] and [T, G, D] to [T, H·D]."""
        rows = packed_seq_params
        assert rows.qkv_format == "thd" and rows.cu_seqlens_q.dtype == rows.cu_seqlens_kv.dtype == torch.int32
        for starts, longest, states in (
            (rows.cu_seqlens_q, rows.max_seqlen_q, query),
            (rows.cu_seqlens_kv, rows.max_seqlen_kv, key),
            (rows.cu_seqlens_kv, rows.max_seqlen_kv, value),
        ):
            assert longest == int(starts.diff().max()) and starts[-1] == len(states)
        # The upper left triangle is the lower right one only where a row has as many queries as keys.
        square = torch.equal(rows.cu_seqlens_q, rows.cu_seqlens_kv)
        assert attn_mask_type.name == ("causal" if square else "padding_causal_bottom_right")
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        found = []
        spans = (starts.unfold(0, 2, 1).tolist() for starts in (rows.cu_seqlens_q, rows.cu_seqlens_kv))
        for (a, b), (c, d) in zip(*spans, strict=True):
            scores = torch.einsum("qhd,khd->hqk", query[a:b], key[c:d]) * self.scale
            seen = torch.ones(b - a, d - c, dtype=torch.bool).tril((d - c) - (b - a))
            weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
            found.append(torch.einsum("hqk,khd->qhd", weights, value[c:d]))
        return torch.cat(found).flatten(1)


@pytest.mark.parametrize(
    "shared",
    [
        [0, 0, 0, 0, 0],
        [0, 3, 3, 0, 1],
        [0, 3, 5, 1, 9],
        [0, 5, 5, 2, 2],
    ],
    ids=["nothing", "prompts", "a-deeper-tree", "rows-that-are-there-twice"],
)
def test_the_two_are_one(shared: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a kernel of plain torch in the place of TransformerEngine's, which needs a GPU."""
    for name in ("transformer_engine", "transformer_engine.pytorch"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(transformer_engine, "TEDotProductAttention", Thd)
    config = TransformerConfig(num_layers=1, hidden_size=64, num_attention_heads=4, num_query_groups=2)
    groups: Any = SimpleNamespace(tp=SimpleNamespace(size=lambda: 1))
    fused = FusedAttention(config=config, layer_number=1, pg_collection=groups, softmax_scale=0.3)
    plain = PackedAttention(config, 1, AttnMaskType.causal, "self", softmax_scale=0.3, pg_collection=groups)
    lengths = np.array([5, 5, 9, 9, 12])
    rows = packed_rows(token_places(lengths, np.array(shared)), np.array(shared), torch.device("cpu"))
    tokens = int(lengths.sum()) - sum(shared)
    torch.manual_seed(0)
    query, key, value = (torch.randn(tokens, 1, heads, 16, requires_grad=True) for heads in (4, 2, 2))
    found, expected = (layer(query, key, value, None, packed_seq_params=rows) for layer in (fused, plain))
    assert found.shape == expected.shape == (tokens, 1, 64)
    torch.testing.assert_close(found, expected)
    grads, wanted = (torch.autograd.grad(out.square().sum(), (query, key, value)) for out in (found, expected))
    torch.testing.assert_close(grads, wanted, rtol=1e-4, atol=1e-5)


def test_a_transformer_engine_that_cannot_be_imported_is_not_passed_over() -> None:
    config = TransformerConfig(num_layers=1, hidden_size=64, num_attention_heads=4)
    with pytest.raises(ImportError, match="transformer_engine"):
        FusedAttention(config=config, layer_number=1, pg_collection=SimpleNamespace(tp=None))
