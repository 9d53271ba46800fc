"""Importance-sampling correction: generation and training are two engines, so the sampler is not quite the old policy.

A correction is a function `(inputs, **options) -> [T] weights` in the registry `corrections`; the policy loss of each
token is multiplied by its weight, which has no gradient. It is given some whole rows of a step at a time, so what it
gives a row may depend on nothing but that row. With w_t = old policy / sampler at a token:

* token weights are w_t: of low variance, biased, as they leave out what came before the token;
* row weights are the product of the row's w_t, at each of its tokens: unbiased, of a variance that grows with length;
* truncating holds a weight at `max` (importance weights held so: IMPALA, arXiv 1802.01561, section 4.1); masking
  throws away what is not to be trusted.

Sources: Yao et al., "Your efficient RL framework secretly brings you off-policy RL training" (2025), for the token's
weight truncated; IcePop, arXiv 2510.18855, for masking by tokens; Liu et al., "When speed kills stability" (2025), for
both by rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from hybridflow.bounds import Bounds, Positive
from hybridflow.losses.options import with_options
from hybridflow.losses.ratios import clamped_exp
from hybridflow.losses.segments import refuse_other_sizes, row_sums, to_tokens
from hybridflow.registry import Registry


@dataclass(frozen=True)
class CorrectionInputs:
    """Inputs of a correction.

    Attributes:
        old_log_probs: [T] of the sampled tokens by the engine that trains, before the step's updates.
        rollout_log_probs: [T] by the engine that sampled them.
        lengths: [R] int64, tokens of each row.

    Raises ValueError if the shapes disagree.
    """

    old_log_probs: Tensor
    rollout_log_probs: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        refuse_other_sizes(self, tokens=("old_log_probs", "rollout_log_probs"))

    def token_ratios(self) -> Tensor:
        """Return [T] float32: old policy / sampler."""
        return clamped_exp(self.old_log_probs.detach().float() - self.rollout_log_probs.detach().float())

    def row_ratios(self) -> Tensor:
        """Return [T] float32: the product of the row's token ratios, at each of its tokens."""
        log_ratios = self.old_log_probs.detach().float() - self.rollout_log_probs.detach().float()
        return to_tokens(clamped_exp(row_sums(log_ratios, self.lengths)), self.lengths)


Correction = Callable[..., Tensor]
corrections: Registry[Correction] = Registry("rollout correction", of=Callable)
# Of a masked weight: what the engines agree on, a weight of 1, is always kept.
Below = Annotated[float, Bounds(at_least=0, at_most=1)]
Above = Annotated[float, Bounds(at_least=1)]


def correction(name: str, options: Mapping[str, Any]) -> Callable[[CorrectionInputs], Tensor]:
    """Return a correction of a registered name with its options set.

    Raises KeyError for an unknown name, ValueError for an unknown or a missing option.
    """
    return with_options(corrections, name, options)


@corrections.register("token_truncated")
def token_truncated(inputs: CorrectionInputs, *, max: Positive = 2.0) -> Tensor:
    """Truncate the importance weight of each token: min(w_t, `max`). Source: Yao et al., whose bound is 2."""
    return inputs.token_ratios().clamp(max=max)


@corrections.register("token_masked")
def token_masked(inputs: CorrectionInputs, *, min: Below = 0.5, max: Above = 5.0) -> Tensor:
    """Mask tokens: w_t where it lies between `min` and `max`, else 0. Source: IcePop, whose bounds are 0.5 and 5."""
    return _masked(inputs.token_ratios(), min, max)


@corrections.register("row_truncated")
def row_truncated(inputs: CorrectionInputs, *, max: Positive = 2.0) -> Tensor:
    """Truncate a row's weight: min(Π w_t, `max`) at each token. The bound is that of tokens; none is published."""
    return inputs.row_ratios().clamp(max=max)


@corrections.register("row_masked")
def row_masked(inputs: CorrectionInputs, *, min: Below = 0.5, max: Above = 2.0) -> Tensor:
    """Mask rows: Π w_t at a row's tokens where it lies between `min` and `max`, else 0: such a row teaches nothing.

    The bounds are ours, a factor of two each way.
    """
    return _masked(inputs.row_ratios(), min, max)


def changed(inputs: CorrectionInputs, weights: Tensor) -> Tensor:
    """Return [T] bool: tokens whose weight was truncated or masked: it is neither the token's ratio nor its row's."""
    return (weights != inputs.token_ratios()) & (weights != inputs.row_ratios())


def _masked(ratios: Tensor, min: float, max: float) -> Tensor:
    return torch.where((ratios >= min) & (ratios <= max), ratios, 0.0)
