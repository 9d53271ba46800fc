"""bfloat16 matrix products and attention on a CPU without bfloat16 instructions.

There torch 2.13 takes several times as long for them as in float32: products 8 times on an AVX2 core (9 against 77
GFLOP/s) and 4.5 times on an AVX-512 core, attention's backward pass 3 times. `apply` makes them float32 products that
are rounded once, which is what hardware with such instructions does too: bfloat16 factors, float32 sums. It replaces
five Python names of torch, so it reaches Megatron's layers and their hand-written backward passes; it goes away when
torch's own products are as fast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PRODUCTS = (
    (torch, "matmul"),
    (Tensor, "matmul"),
    (Tensor, "__matmul__"),
    (F, "linear"),
    (F, "scaled_dot_product_attention"),
)
INSTRUCTIONS = ("avx512_bf16", "amx_bf16")  # of x86; torch's own `_is_mkldnn_bf16_supported` is content with AVX-512


def needed() -> bool:
    """Tell whether this CPU lacks the instructions that torch's fast bfloat16 products are written for."""
    can = torch.cpu.get_capabilities()
    if can["architecture"] == "x86_64":
        return not any(can[name] for name in INSTRUCTIONS)
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def apply() -> None:
    """Replace the products in this process; a second call changes nothing."""
    for owner, name in PRODUCTS:
        product = getattr(owner, name)
        if not hasattr(product, "_is_wide"):
            setattr(owner, name, widened(product))


def widened(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Wrap a product so that it is computed in float32 when its first factor is a bfloat16 tensor on the CPU."""

    @functools.wraps(product)
    def wide(first: Tensor, *rest: Any, **named: Any) -> Tensor:
        if first.dtype is not torch.bfloat16 or first.device.type != "cpu":
            return product(first, *rest, **named)
        options = {name: _float(value) for name, value in named.items()}
        return product(first.float(), *map(_float, rest), **options).bfloat16()

    wide._is_wide = True  # type: ignore[attr-defined]
    return wide


def _float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype is torch.bfloat16 else value
