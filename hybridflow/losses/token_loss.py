"""The result of a loss before its tokens are averaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class TokenLoss:
    """Loss a token, and what to report about it: by name, scalars without gradients. A step reports one number each.

    Attributes:
        loss: [T], with gradients; `hybridflow.losses.aggregations` has its weights.
        metrics: sums over the T tokens (`sums` makes them). What is reported is the mean over all tokens of the step.
        means: means over the T tokens, reported as that mean too.
        maxima: reported as the largest of the step.
        weights: [T] weights of tokens, of which the effective share is reported (`Moments.effective_share`).
        terms: [T] parts of the loss, reported as they are minimized: weighed as its tokens are, and summed.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor]
    means: Mapping[str, Tensor] = field(default_factory=dict)
    maxima: Mapping[str, Tensor] = field(default_factory=dict)
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)


def sums(quantities: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sum [T] quantities to scalars without gradients, in float32."""
    return {name: values.detach().float().sum() for name, values in quantities.items()}
