"""Packed rows: T tokens of R rows end to end, told apart by `lengths` [R] int64, on one device. Rows may be empty."""

from __future__ import annotations

import torch
from torch import Tensor


def row_numbers(lengths: Tensor) -> Tensor:
    """[T] int64: the row that each token belongs to."""
    return to_tokens(torch.arange(len(lengths), device=lengths.device), lengths)


def to_tokens(row_values: Tensor, lengths: Tensor) -> Tensor:
    """[R] to [T]: each row's value at each of its tokens."""
    return torch.repeat_interleave(row_values, lengths)


def row_sums(token_values: Tensor, lengths: Tensor) -> Tensor:
    """[T] to [R]: the sum of each row; 0 for an empty one."""
    return token_values.new_zeros(len(lengths)).index_add(0, row_numbers(lengths), token_values)


def last_tokens(lengths: Tensor) -> Tensor:
    """[rows that have tokens] int64: the place in [T] of each such row's last token."""
    return (torch.cumsum(lengths, 0) - 1)[lengths > 0]
