"""Aggregation weights: the means that they stand for, however the rows are cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hybridflow.losses.aggregations import aggregations, totals

# Each row is a list of tokens, each (loss, counts).
ROWS = st.lists(st.lists(st.tuples(st.floats(-4, 4, width=32), st.booleans()), max_size=5), max_size=8)
Rows = list[list[tuple[float, bool]]]


def pack_rows(rows: Rows) -> tuple[Tensor, Tensor]:
    """The losses of tokens that count, end to end, and how many each row has."""
    counted = [[loss for loss, counts in row if counts] for row in rows]
    losses = torch.tensor([loss for row in counted for loss in row], dtype=torch.float64)
    return losses, torch.tensor(list(map(len, counted)), dtype=torch.int64)


def token_mean_loop(rows: Rows) -> float:
    counted = [loss for row in rows for loss, counts in row if counts]
    return sum(counted) / len(counted) if counted else 0.0


def sequence_mean_loop(rows: Rows) -> float:
    means = [token_mean_loop([row]) for row in rows if any(counts for _, counts in row)]
    return sum(means) / len(means) if means else 0.0


def fixed_length_mean_loop(rows: Rows) -> float:
    sums = [sum(loss for loss, counts in row if counts) / LIMIT for row in rows if any(counts for _, counts in row)]
    return sum(sums) / len(sums) if sums else 0.0


LIMIT = 7
EXPECTED = {
    "token_mean": token_mean_loop,
    "sequence_mean": sequence_mean_loop,
    "fixed_length_mean": fixed_length_mean_loop,
}


def test_the_names_are_known() -> None:
    assert set(aggregations) == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
@given(rows=ROWS)
def test_against_a_loop(name: str, rows: Rows) -> None:
    losses, lengths = pack_rows(rows)
    weights = aggregations.get(name)(lengths, *totals(lengths), limit=LIMIT)
    assert float((losses * weights).sum()) == pytest.approx(EXPECTED[name](rows), abs=1e-5)


@pytest.mark.parametrize("name", sorted(EXPECTED))
@given(rows=ROWS)
def test_slopes_against_a_loop(name: str, rows: Rows) -> None:
    """The loop runs over scalars that autograd follows."""
    losses, lengths = pack_rows(rows)
    given, looped = losses.clone().requires_grad_(), losses.clone().requires_grad_()
    tokens = iter(looped)
    scalars = [[(next(tokens) if counts else 0.0, counts) for _, counts in row] for row in rows]
    mean = EXPECTED[name](scalars)  # type: ignore[arg-type]
    (given * aggregations.get(name)(lengths, *totals(lengths), limit=LIMIT)).sum().backward()
    assert given.grad is not None
    if isinstance(mean, Tensor):
        mean.backward()
        torch.testing.assert_close(given.grad, looped.grad, rtol=1e-6, atol=1e-9)
    else:
        assert not given.grad.any(), "nothing counts"


@pytest.mark.parametrize("name", sorted(EXPECTED))
@given(rows=ROWS, data=st.data())
def test_any_cut_into_parts_gives_the_same_sum(name: str, rows: Rows, data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, 4))
    owner = data.draw(st.lists(st.integers(0, parts - 1), min_size=len(rows), max_size=len(rows)))
    cut = [pack_rows([row for row, at in zip(rows, owner, strict=True) if at == part]) for part in range(parts)]
    tokens, counted = map(sum, zip(*(totals(lengths) for _, lengths in cut), strict=True))
    weigh = aggregations.get(name)
    summed = sum(float((losses * weigh(n, tokens, counted, limit=LIMIT)).sum()) for losses, n in cut)
    assert summed == pytest.approx(EXPECTED[name](rows), abs=1e-5)


def test_a_step_without_any_token_weighs_nothing() -> None:
    lengths = torch.tensor([0, 0])
    assert totals(lengths) == [0.0, 0.0]
    for name in aggregations:
        assert aggregations.get(name)(lengths, *totals(lengths)).tolist() == []


def test_plain_numbers_serve_as_totals() -> None:
    assert aggregations.get("token_mean")(torch.tensor([1, 1]), 4, 3).tolist() == [0.25, 0.25]
    assert aggregations.get("sequence_mean")(torch.tensor([2, 1]), 9, 2).tolist() == [0.25, 0.25, 0.5]
    assert aggregations.get("fixed_length_mean")(torch.tensor([2, 1]), 9, 2, limit=4).tolist() == [0.125] * 3
