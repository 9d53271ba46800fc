"""Float32 copies of bfloat16 weights, which vLLM multiplies with on a CPU without bfloat16 instructions.

Left to itself it would multiply with the bfloat16 weight there, which is made float32 again for each token that rows
are advanced by (`hybridflow.parallel.bf16`), or with oneDNN's bfloat16 copy, whose products are emulated. A float32
copy is made once, at an update, and packed by oneDNN unless it is small (`small_products`), as float32 weights are. Its
products are the same: bfloat16 factors, float32 sums, and a result that is rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vllm import _custom_ops
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from hybridflow.engines.vllm import small_products
from hybridflow.parallel.platform import platform

PRIMITIVES = 32  # of oneDNN that a layer keeps, one for each number of tokens; as many as vLLM's own products


class Float32Product:
    """Product with the float32 copy of a [N, K] bfloat16 weight, as vLLM calls it."""

    def __init__(self, weight: Tensor) -> None:
        self._multiply: Callable[[Tensor, Tensor | None], Tensor]
        copy = weight.float()
        if copy.numel() > small_products.SMALL:
            self._multiply = partial(_custom_ops.onednn_mm, _custom_ops.create_onednn_mm(copy.t(), PRIMITIVES))
        else:
            self._multiply = partial(_with_small, copy)

    def __call__(self, numbers: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Multiply [..., K] to [..., N]; `weight` is what the layer still has of it."""
        return self._multiply(numbers.float(), None if bias is None else bias.float()).to(numbers.dtype)


def _with_small(weight: Tensor, numbers: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(numbers, weight, bias)


def wanted(layer: nn.Module) -> bool:
    """Tell whether a layer's products are to be with a float32 copy."""
    products = isinstance(layer, (LinearBase, VocabParallelEmbedding))
    return products and platform().widens_bfloat16 and layer.weight.dtype is torch.bfloat16


def copy(layer: Any, *, keeps_weight: bool) -> None:
    """Make the float32 copy of a layer's weight, and let go of the weight unless something else reads it."""
    layer.cpu_linear = None  # the older copy goes before the new one is made
    layer.cpu_linear = Float32Product(layer.weight.detach())
    if not keeps_weight:
        layer.weight = nn.Parameter(layer.weight.new_empty(0), requires_grad=False)
