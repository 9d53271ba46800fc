"""Packed copies of weights, which vLLM computes with on a CPU and which only a product can read.

A product with rows of the identity gives columns of the weight bit for bit: all other terms are zeros. To read all
columns so costs as much as a forward of as many tokens; so of a large layer some are read after each update, the next
ones at the next version, and of a small one all. What is packed once more from older numbers, or from another layer's,
differs in nearly every column.

Small float32 weights are left to torch (`small_products`). There vLLM multiplies with the weight itself, which is read
whole as all parameters are, and its columns through the layer as well. Copies of bfloat16 weights are float32 ones
where a CPU has no instructions for bfloat16 (`float32_copies`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.linear import LinearBase

SMALL = 2**18  # numbers of a layer that is read whole
COLUMNS = 16  # that are read of a larger one


class Columns(NamedTuple):
    """Some columns of a weight.

    Attributes:
        width: columns of the whole weight.
        places: [C] of these.
        numbers: [C, rows of the weight].
    """

    width: int
    places: Tensor
    numbers: Tensor


def read_columns(weight: Tensor, version: int) -> Columns:
    """Copy the columns of a weight that are read after the update to that version."""
    width = weight.shape[1]
    count = width if weight.numel() <= SMALL else COLUMNS
    first = version * count % width if count < width else 0
    last = min(first + count, width)
    # Neighbors, which lie in one line of a cache: places all over would read the whole weight from memory.
    return Columns(width, torch.arange(first, last), weight[:, first:last].T.contiguous())


def differs(layer: nn.Module, columns: Columns) -> bool:
    """Tell whether a layer multiplies with other numbers than these."""
    unit = torch.zeros(len(columns.places), columns.width, dtype=columns.numbers.dtype)
    unit[torch.arange(len(unit)), columns.places] = 1
    method: Any = layer.quant_method
    found = method.apply(layer, unit)
    return not torch.equal(found, columns.numbers) and not torch.equal(_flushed(found), _flushed(columns.numbers))


def multiplying(model: Any) -> Iterator[nn.Module]:
    """Yield the layers that vLLM multiplies with; packed embeddings that are no output layer are none of them."""
    head = getattr(model, "lm_head", None)
    for layer in model.modules():
        if hasattr(layer, "cpu_linear") and (isinstance(layer, LinearBase) or layer is head):
            yield layer


def _flushed(numbers: Tensor) -> Tensor:
    """Return the numbers with zeros for those that bfloat16 instructions take for zeros."""
    return torch.where(numbers.abs() < torch.finfo(numbers.dtype).tiny, 0, numbers)
