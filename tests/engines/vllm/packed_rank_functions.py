"""What a rank runs: layers packed by vLLM, and their columns read through it."""

from __future__ import annotations

from unittest.mock import patch

import torch
from torch import Tensor, nn

from hybridflow.engines.vllm import small_products
from tests.engines.vllm.corruptions import flipped


class Method:
    """Packing, where it packs, and product of vLLM's linear layers on a CPU."""

    def apply(self, layer: nn.Module, numbers: Tensor) -> Tensor:
        from vllm.model_executor.layers.utils import cpu_unquantized_gemm

        return cpu_unquantized_gemm(layer, numbers, layer.weight, None)


def packed(weight: Tensor) -> nn.Module:
    """A layer with that weight, packed as large ones are."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    layer = nn.Module()
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    layer.quant_method = Method()
    with patch.object(small_products, "SMALL", 0):
        dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    assert (layer.weight.numel() == 0) is packs(weight.dtype), "not as on such a CPU"
    return layer


def packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN has products in that format on this CPU. Where it has none, vLLM multiplies with the weight."""
    return dtype is torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def numbers(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def small(dtype: torch.dtype) -> dict[str, bool]:
    """Whether a layer is told from its columns, if it is as it was written, and changed in some way."""
    from hybridflow.engines.vllm import packed_copies

    weight = numbers(96, 64).to(dtype)
    weight[3, 5], weight[4, 6] = -0.0, 1e-39  # of which bfloat16 instructions make zeros
    columns = packed_copies.read_columns(weight, version=7)
    assert columns.places.tolist() == list(range(64))
    last = 8 * weight.itemsize - 1
    changed = {f"bit {bit} of {at}": flipped(weight, at, bit) for at in (0, 17, 6143) for bit in (0, 1, last)}
    changed |= {"as written": weight, "moved": weight.roll(1, 0)}
    return {how: packed_copies.differs(packed(one), columns) for how, one in changed.items()}


def large() -> list[list[int]]:
    """The columns that are read of a layer at versions 1, 1 and 2; what is stale shows in any."""
    from hybridflow.engines.vllm import packed_copies

    weight = numbers(4096, 1024)
    read = [packed_copies.read_columns(weight, version) for version in (1, 1, 2)]
    right, stale = packed(weight), packed(weight * 1.0001)
    assert [packed_copies.differs(right, columns) for columns in read] == [False] * 3
    assert [packed_copies.differs(stale, columns) for columns in read] == [True] * 3
    return [columns.places.tolist() for columns in read]
