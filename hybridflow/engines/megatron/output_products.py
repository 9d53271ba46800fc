"""Products with an output layer's weight, in float32, whatever the weight's format.

A GPU multiplies float32 numbers, without TF32, far slower than bfloat16 ones (H100: 67 against 989 TFLOP/s): so the
output layer of a 7B model would cost as much as its whole body. The product of two bfloat16 numbers is exact in
float32, and the units that form it add in float32. So there a bfloat16 weight is multiplied as it is: with hidden
states, which are bfloat16 numbers in such a model, and with gradients, each written as the sum of two bfloat16 numbers
(16 bits of its 24). A CPU has no such product, and float32 weights need none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hybridflow.parallel.platform import platform


class Wide:
    """Products of float32 numbers."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.float()

    def logits(self, hidden: Tensor) -> Tensor:
        """Multiply [n, H] float32 hidden states to [n, V] float32 logits."""
        return hidden @ self._weight.t()

    def to_hidden(self, grad: Tensor, out: Tensor) -> None:
        """Write the gradient of the hidden states, [n, H], for that of the logits, [n, V]."""
        torch.mm(grad, self._weight, out=out)

    def add_to_weight(self, total: Tensor, grad: Tensor, hidden: Tensor) -> None:
        """Add to the gradient of the weight, [V, H]."""
        total.addmm_(grad.t(), hidden)


class Mixed(Wide):
    """Products of bfloat16 numbers, added in float32."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def logits(self, hidden: Tensor) -> Tensor:
        return product(hidden.bfloat16(), self._weight.t())

    def to_hidden(self, grad: Tensor, out: Tensor) -> None:
        first, second = halves(grad)
        out.copy_(product(first, self._weight))
        add_product(out, second, self._weight)

    def add_to_weight(self, total: Tensor, grad: Tensor, hidden: Tensor) -> None:
        narrow = hidden.bfloat16()
        for half in halves(grad):
            add_product(total, half.t(), narrow)


def products(weight: Tensor) -> Wide:
    """Return the products that suit the weight and the hardware."""
    return Mixed(weight) if weight.dtype == torch.bfloat16 and platform().mixed_products else Wide(weight)


def halves(values: Tensor) -> tuple[Tensor, Tensor]:
    """Split each float32 number into two bfloat16 ones whose sum is within 2⁻¹⁷ of it, relative to it."""
    first = values.bfloat16()
    return first, (values - first.float()).bfloat16()


def product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply bfloat16 matrices to a float32 one."""
    return torch.mm(left, right, out_dtype=torch.float32)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add the product of bfloat16 matrices to a float32 one, in place."""
    torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
