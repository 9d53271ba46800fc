"""Values that pass between a training engine and the losses of its caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class TokenOutputs(NamedTuple):
    """Outputs of the model for N response tokens that are learned from, or for R rows.

    Attributes:
        log_probs, entropy: [N] float32, of a language model.
        values: [N] float32, of a value model: the value of the state before each token.
        scores: [R] float32, of a reward model: what it says at each row's last token.
    """

    log_probs: Tensor
    entropy: Tensor
    values: Tensor
    scores: Tensor


@dataclass(frozen=True)
class MicroBatch:
    """Group of rows that go through the model together, as a loss sees them; engines add what their model takes.

    Attributes:
        rows: [R] which rows of the batch these are, in the order of `TokenOutputs`.
        lengths: [R] learned response tokens of each row: all, where there is no `loss_mask`.
        learned: which of the rows' response tokens these are, [response tokens] bool; None: all.
        targets: [N] int64 the learned tokens, end to end.
    """

    rows: np.ndarray
    lengths: Tensor
    learned: np.ndarray | None
    targets: Tensor


LossShare = Callable[[TokenOutputs, MicroBatch], "Tensor"]
"""A micro-batch's share of the global loss: shares are summed over micro-batches and data parallel ranks."""


@dataclass(frozen=True)
class StepResult:
    """Result of an optimizer step.

    Attributes:
        applied: False: the gradient was not finite, so weights and state are as they were.
        grad_norm: of the whole model, before clipping.
    """

    applied: bool
    grad_norm: float
    lr: float
