"""Packed rows against lists."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.losses.segments import last_tokens, row_numbers, row_sums, to_tokens

LENGTHS = st.lists(st.integers(0, 6), max_size=8)


@given(LENGTHS)
def test_each_token_knows_its_row(lengths: list[int]) -> None:
    expected = [row for row, n in enumerate(lengths) for _ in range(n)]
    assert row_numbers(torch.tensor(lengths, dtype=torch.int64)).tolist() == expected


@given(LENGTHS)
def test_a_value_of_a_row_reaches_each_of_its_tokens(lengths: list[int]) -> None:
    values = torch.arange(len(lengths)) * 10.0
    expected = [row * 10.0 for row, n in enumerate(lengths) for _ in range(n)]
    assert to_tokens(values, torch.tensor(lengths, dtype=torch.int64)).tolist() == expected


@given(LENGTHS)
def test_sums_of_rows(lengths: list[int]) -> None:
    packed = torch.tensor(lengths, dtype=torch.int64)
    tokens = torch.arange(sum(lengths), dtype=torch.float32) + 1
    assert row_sums(tokens, packed).tolist() == [float(row.sum()) for row in tokens.split(lengths)]


@given(LENGTHS)
def test_last_tokens_leave_out_empty_rows(lengths: list[int]) -> None:
    ends = [sum(lengths[: row + 1]) - 1 for row, n in enumerate(lengths) if n]
    assert last_tokens(torch.tensor(lengths, dtype=torch.int64)).tolist() == ends


def test_gradients_flow_through_sums_and_broadcasts() -> None:
    lengths = torch.tensor([2, 0, 1])
    tokens = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (row_sums(tokens, lengths) * torch.tensor([5.0, 7.0, 11.0])).sum().backward()
    assert tokens.grad is not None and tokens.grad.tolist() == [5.0, 5.0, 11.0]
    rows = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    to_tokens(rows, lengths).sum().backward()
    assert rows.grad is not None and rows.grad.tolist() == [2.0, 0.0, 1.0]
