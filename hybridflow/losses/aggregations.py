"""Aggregations: a weight a token, so that `(loss * weights).sum()`, summed over micro-batches and ranks, is the mean.

The weights depend on totals over the whole of an optimiser step and not on how its rows were cut, so splitting the
rows over ranks or micro-batches changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridflow.losses.segments import row_sums, to_tokens
from hybridflow.registry import Registry

# (lengths [R], total_tokens, total_rows, mask [T] bool or None, limit=) -> weights [T] float32
Aggregation = Callable[..., Tensor]
aggregations: Registry[Aggregation] = Registry("loss aggregation", of=Callable)


def totals(lengths: Tensor, mask: Tensor | None = None) -> Tensor:
    """[2] float64, (tokens, rows) that count here; sum it over micro-batches and ranks for the totals of a step.

    A row counts if it has a token that counts; an empty or wholly masked row does not.
    """
    counts = _counts(lengths, mask)
    return torch.stack([counts.sum(), (counts > 0).sum()]).double()


@aggregations.register("token_mean")
def token_mean(
    lengths: Tensor,
    total_tokens: float | Tensor,
    total_rows: float | Tensor,
    mask: Tensor | None = None,
    *,
    limit: int = 1,
) -> Tensor:
    """Weigh every token alike: 1 / `total_tokens`. Long rows count for more (DAPO, arXiv 2503.14476, equation 12).

    Args:
        lengths: [R] int64, the rows at hand.
        total_tokens, total_rows: `totals`, summed over the whole step.
        mask: [T] bool, tokens that count; None: all. The others weigh exactly 0.
        limit: the most tokens that a row may have.
    """
    return _masked(to_tokens(1.0 / _at_least_one(total_tokens, lengths).expand(len(lengths)), lengths), mask)


@aggregations.register("sequence_mean")
def sequence_mean(
    lengths: Tensor,
    total_tokens: float | Tensor,
    total_rows: float | Tensor,
    mask: Tensor | None = None,
    *,
    limit: int = 1,
) -> Tensor:
    """Average over rows each row's mean over its tokens (arXiv 2402.03300, equation 3). Arguments as `token_mean`.

    Rows without a token that counts are not in the mean.
    """
    counts = _counts(lengths, mask).clamp(min=1)
    return _masked(to_tokens(1.0 / (counts * _at_least_one(total_rows, lengths)), lengths), mask)


@aggregations.register("fixed_length_mean")
def fixed_length_mean(
    lengths: Tensor,
    total_tokens: float | Tensor,
    total_rows: float | Tensor,
    mask: Tensor | None = None,
    *,
    limit: int = 1,
) -> Tensor:
    """Average over rows each row's sum / `limit`: how long a row is does not change what its tokens weigh.

    Source: Dr. GRPO (arXiv 2503.20783, section 3.2), whose constant is the generation budget. Arguments as
    `token_mean`.
    """
    return _masked(to_tokens(1.0 / (limit * _at_least_one(total_rows, lengths)).expand(len(lengths)), lengths), mask)


def _counts(lengths: Tensor, mask: Tensor | None) -> Tensor:
    return lengths if mask is None else row_sums(mask.long(), lengths)


def _at_least_one(total: float | Tensor, lengths: Tensor) -> Tensor:
    # A step in which nothing counts has weights of 0, not of 0 / 0.
    return torch.as_tensor(total, dtype=torch.float32, device=lengths.device).clamp(min=1)


def _masked(weights: Tensor, mask: Tensor | None) -> Tensor:
    return weights if mask is None else weights * mask
