"""What a loss gives before its tokens are averaged."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TokenLoss:
    """A loss a token, and what to report about it.

    Attributes:
        loss: [T], with gradients; `hybridflow.losses.aggregate` has its weights.
        metrics: by name, a scalar without gradients: the sum over the T tokens. Divide by the number of tokens.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


def sums(quantities: dict[str, Tensor]) -> dict[str, Tensor]:
    """[T] quantities to scalar sums without gradients, in float32."""
    return {name: values.detach().float().sum() for name, values in quantities.items()}
