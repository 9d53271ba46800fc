"""Aggregations: a weight a token, so that `(loss * weights).sum()`, summed over micro-batches and ranks, is the mean.

The weights depend on totals over the whole of an optimizer step and not on how its rows were cut, so splitting the
rows over ranks or micro-batches changes nothing. `lengths` counts the tokens that are learned from: others, which a
`loss_mask` names, have no loss to weigh.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridflow.losses.segments import to_tokens
from hybridflow.registry import Registry

Aggregation = Callable[..., Tensor]  # (lengths [R], total_tokens, total_rows, *, limit) -> weights [T] float32
aggregations: Registry[Aggregation] = Registry("loss aggregation", of=Callable)


def totals(lengths: Tensor) -> list[float]:
    """Count [tokens, rows that have any]; the totals of a step are its sum over micro-batches and ranks."""
    return [float(lengths.sum()), float((lengths > 0).sum())]


@aggregations.register("token_mean")
def token_mean(lengths: Tensor, total_tokens: float | Tensor, total_rows: float | Tensor, *, limit: int = 1) -> Tensor:
    """Weigh every token alike: 1 / `total_tokens`. Long rows count for more (DAPO, arXiv 2503.14476, equation 12).

    Args:
        lengths: [R] int64, the rows at hand.
        total_tokens, total_rows: `totals`, summed over the whole step.
        limit: the most tokens that a row may have.
    """
    return to_tokens(1.0 / _at_least_one(total_tokens, lengths).expand(len(lengths)), lengths)


@aggregations.register("sequence_mean")
def sequence_mean(
    lengths: Tensor, total_tokens: float | Tensor, total_rows: float | Tensor, *, limit: int = 1
) -> Tensor:
    """Average over rows each row's mean over its tokens (arXiv 2402.03300, equation 3).

    Rows without tokens are not in the mean. Arguments as `token_mean`.
    """
    return to_tokens(1.0 / (lengths.clamp(min=1) * _at_least_one(total_rows, lengths)), lengths)


@aggregations.register("fixed_length_mean")
def fixed_length_mean(
    lengths: Tensor, total_tokens: float | Tensor, total_rows: float | Tensor, *, limit: int = 1
) -> Tensor:
    """Average over rows each row's sum / `limit`: how long a row is does not change what its tokens weigh.

    Source: Dr. GRPO (arXiv 2503.20783, section 3.2), whose constant is the generation budget. Arguments as
    `token_mean`.
    """
    return to_tokens(1.0 / (limit * _at_least_one(total_rows, lengths)).expand(len(lengths)), lengths)


def _at_least_one(total: float | Tensor, lengths: Tensor) -> Tensor:
    # A step in which nothing counts has weights of 0, not of 0 / 0.
    return torch.as_tensor(total, dtype=torch.float32, device=lengths.device).clamp(min=1)
