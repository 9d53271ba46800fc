"""bfloat16 matrix products on a CPU without bfloat16 instructions.

There torch computes them without vector instructions, 8 times slower than in float32 (measured: 9 against 77 GFLOP/s on
an AVX2 core, torch 2.13). This mode computes them in float32 and rounds the result once, which is what hardware with
such instructions does too: bfloat16 factors, float32 sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

PRODUCTS = {
    torch.matmul,
    torch.mm,
    torch.bmm,
    torch.Tensor.matmul,
    torch.Tensor.__matmul__,
    torch.Tensor.mm,
    torch.Tensor.bmm,
    F.linear,
}


class Float32Products(TorchFunctionMode):
    """While it is entered, products of bfloat16 CPU tensors are computed in float32."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Hand every call on, those to products with float32 factors."""
        if func in PRODUCTS and args[0].dtype is torch.bfloat16 and args[0].device.type == "cpu":
            return func(*map(_wide, args), **{name: _wide(value) for name, value in (kwargs or {}).items()}).bfloat16()
        return func(*args, **(kwargs or {}))


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) else value
