"""Packed rows: T tokens of R rows end to end, told apart by `lengths` [R] int64, on one device. Rows may be empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def refuse_other_sizes(inputs: Any, *, tokens: Sequence[str] = (), rows: Sequence[str] = ()) -> None:
    """Raise ValueError unless these fields are [T] or [R], as `inputs.lengths` has it. One that is None is passed."""
    row_count = len(inputs.lengths)
    token_count = int(inputs.lengths.sum())
    for size, names in ((token_count, tokens), (row_count, rows)):
        for name in names:
            column = getattr(inputs, name)
            if column is not None and len(column) != size:
                raise ValueError(
                    f"{name} has {len(column)} entries; {row_count} rows of {token_count} tokens want {size}"
                )


def row_numbers(lengths: Tensor) -> Tensor:
    """Return [T] int64: the row that each token belongs to."""
    return to_tokens(torch.arange(len(lengths), device=lengths.device), lengths)


def to_tokens(row_values: Tensor, lengths: Tensor) -> Tensor:
    """Repeat each row's value at each of its tokens: [R] to [T]."""
    return torch.repeat_interleave(row_values, lengths)


def row_sums(token_values: Tensor, lengths: Tensor) -> Tensor:
    """Sum each row's tokens: [T] to [R]; 0 for an empty row."""
    return token_values.new_zeros(len(lengths)).index_add(0, row_numbers(lengths), token_values)


def last_tokens(lengths: Tensor) -> Tensor:
    """Return [rows that have tokens] int64: the place in [T] of each such row's last token."""
    return (torch.cumsum(lengths, 0) - 1)[lengths > 0]


def row_means(token_values: Tensor, lengths: Tensor) -> Tensor:
    """Average each row's tokens: [T] to [R]; 0 for an empty row."""
    return row_sums(token_values, lengths) / lengths.clamp(min=1)


def group_sums(row_values: Tensor, group: Tensor) -> Tensor:
    """Sum over the rows of a group, [R] to [R], at the group's number; `group` [R] counts groups from 0."""
    return torch.zeros_like(row_values).index_add(0, group, row_values)


def discounted(token_values: Tensor, lengths: Tensor, discount: float) -> Tensor:
    """Sum discounted values to the end of the row, [T]: Σ_k discount^k v_{t+k}.

    One pass for a position counted from the end, all rows at once.
    """
    order = torch.argsort(lengths, descending=True)
    ends = torch.cumsum(lengths, 0)[order]
    longer = torch.flip(torch.cumsum(torch.flip(torch.bincount(lengths), [0]), 0), [0])[1:].tolist()
    totals = torch.empty_like(token_values)
    running = token_values.new_zeros(len(lengths))
    for back, rows in enumerate(longer, start=1):  # the first `rows` of `order` have a token so far from their end
        at = ends[:rows] - back
        running = token_values[at] + discount * running[:rows]
        totals[at] = running
    return totals
