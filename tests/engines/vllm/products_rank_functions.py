"""What a rank runs: products of vLLM's layers, with many numbers of rows."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.own_bytes import own_bytes
from hybridflow.engines.vllm import small_products


def layer_of(weight: Tensor) -> nn.Module:
    """A layer with that weight, as vLLM's are after loading."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    small_products.leave_to_torch()
    small_products.leave_to_torch()
    layer = nn.Module()
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    return layer


def product(layer: nn.Module, numbers: Tensor) -> Tensor:
    made: Any = layer
    result: Tensor = made.cpu_linear(numbers, layer.weight, None)
    return result


def kept_weights() -> dict[str, bool]:
    """Whether layers multiply with the weight itself."""
    sizes = {"small": (256, 1024), "large": (257, 1024)}
    return {name: layer_of(torch.ones(size)).weight.numel() > 0 for name, size in sizes.items()}


def multiply(small: int, rows: int) -> int:
    """Multiply 1 to `rows` rows where weights so small are left to torch; bytes that this process then has more of its
    own.
    """
    with patch.object(small_products, "SMALL", small):
        layer = layer_of(torch.ones(184, 56))
        product(layer, torch.ones(1, 56))
        before = own_bytes()
        for count in range(2, rows + 1):
            product(layer, torch.ones(count, 56))
        return own_bytes() - before


if __name__ == "__main__":  # a process of its own: what another has compiled is not compiled again
    print("kept", multiply(small_products.SMALL, 50), flush=True)
    print("packed", multiply(0, 50), flush=True)
