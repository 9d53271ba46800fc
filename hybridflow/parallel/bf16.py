"""bfloat16 matrix products and attention on a CPU without bfloat16 instructions.

There torch 2.13 takes several times as long for them as in float32: products 8 times on an AVX2 core (9 against 77
GFLOP/s) and 4.5 times on an AVX-512 core, attention's backward pass 3 times. `apply` makes them float32 products that
are rounded once, which is what hardware with such instructions does too: bfloat16 factors, float32 sums. It replaces
five Python names of torch, so it reaches Megatron's layers and their hand-written backward passes; it goes away when
torch's own products are as fast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

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
    """Wrap a product so that it is computed in float32 when its first factor is a bfloat16 tensor on the CPU.

    For its backward pass it keeps bfloat16 factors and its rounded result, as hardware with such instructions does: the
    float32 ones are twice the bytes. What else an operation keeps, as attention its log-sum-exp, stays as it is.
    """

    @functools.wraps(product)
    def wide(first: Tensor, *rest: Any, **named: Any) -> Tensor:
        if first.dtype is not torch.bfloat16 or first.device.type != "cpu":
            return product(first, *rest, **named)
        options = {name: _float(value) for name, value in named.items()}
        if not torch.is_grad_enabled():  # the copies go before the result is rounded
            return product(first.float(), *map(_float, rest), **options).bfloat16()
        factors = [_float(value) for value in (first, *rest)]
        kept: list[_Kept] = []

        def keep(tensor: Tensor) -> _Kept:
            kept.append(_Kept(tensor))
            return kept[-1]

        with saved_tensors_hooks(keep, _Kept.widened):
            found = product(*factors, **options)
        rounded = found.bfloat16()
        copies = [*factors, *options.values(), found]
        for one in kept:
            one.narrow(zip(copies, [first, *rest, *named.values(), rounded], strict=True))
        return rounded

    wide._is_wide = True  # type: ignore[attr-defined]
    return wide


class _Kept:
    """A tensor that a product keeps for its backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._version = tensor._version

    def widened(self) -> Tensor:
        """Return it as the backward pass wants it. Raises RuntimeError if it was written to since."""
        if self._tensor._version != self._version:
            raise RuntimeError("a tensor that a product keeps for its backward pass was written to in place")
        return _float(self._tensor)

    def narrow(self, copies: Iterable[tuple[Any, Any]]) -> None:
        """Look into a bfloat16 tensor instead, if this one looks into its float32 copy."""
        kept = self._tensor
        for wide, narrow in copies:
            if wide is narrow or not isinstance(wide, Tensor) or wide.stride() != narrow.stride():
                continue
            if kept.untyped_storage().data_ptr() == wide.untyped_storage().data_ptr() != 0:
                start = narrow.storage_offset() + kept.storage_offset() - wide.storage_offset()
                # Detached: what an operation keeps must not hold the operation.
                self._tensor = narrow.detach().as_strided(kept.shape, kept.stride(), start)
                self._version = self._tensor._version
                return


def _float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype is torch.bfloat16 else value
