"""Ratios of probabilities, from their logarithms."""

from __future__ import annotations

from torch import Tensor

# exp(20) is 5e8: beyond it a ratio says no more than "far away". float32 overflows at exp(89), and a ratio that does
# makes the gradient of a branch not taken 0 · inf = NaN.
LARGEST_LOG_RATIO = 20.0


def clamped_exp(log_ratio: Tensor) -> Tensor:
    """Exponentiate `log_ratio`; one beyond ±20 counts as ±20 and has no gradient."""
    return log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
