"""Runs of tokens that one version of the weights sampled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Ragged
from hybridflow.batch.weight_versions import largest_lag, one_run, refuse_other_tokens, row_lags, sampled_runs, shown

Runs = list[list[tuple[int, int]]]
runs_of_rows = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6)), min_size=1, max_size=4), min_size=1, max_size=5
)


def build_runs(rows: Runs) -> Ragged:
    return Ragged.of([np.array(row, dtype=np.int64).reshape(-1, 2) for row in rows])


def test_one_version_is_one_run_a_row() -> None:
    runs = one_run(7, np.array([3, 0, 1]))
    assert [row.tolist() for row in runs] == [[[7, 3]], [[7, 0]], [[7, 1]]]
    refuse_other_tokens(runs, np.array([3, 0, 1]))


@pytest.mark.parametrize("none", [one_run(7, np.zeros(0, dtype=np.int64)), Ragged.of([])])
def test_no_rows_have_no_lag(none: Ragged) -> None:
    refuse_other_tokens(none, np.zeros(0, dtype=np.int64))
    assert row_lags(none, 7).tolist() == [] and largest_lag(none, 7) == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_lag_of_one_run_is_the_difference_to_the_last_bit(lengths: list[int], version: int, ahead: int) -> None:
    lags = row_lags(one_run(version, np.array(lengths)), version + ahead)
    assert lags.tolist() == [ahead] * len(lengths)
    assert largest_lag(one_run(version, np.array(lengths)), version + ahead) == ahead


@given(runs_of_rows)
def test_a_lag_is_the_mean_over_tokens(rows: Runs) -> None:
    found = row_lags(build_runs(rows), 9).tolist()
    for lag, row in zip(found, rows, strict=True):
        tokens = [9 - version for version, count in row for _ in range(count)] or [9 - version for version, _ in row]
        assert lag == pytest.approx(sum(tokens) / len(tokens))
    assert largest_lag(build_runs(rows), 9) == max(9 - version for row in rows for version, _ in row)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([[(1, 2)], [(1, 2)]], r"row 1 is \[\[1, 2\]\], 2 tokens of a response of 3"),
        ([[(1, 2)], []], r"row 1 is \[\], 0 tokens of a response of 3"),
    ],
)
def test_runs_are_of_all_tokens_of_a_response(rows: Runs, told: str) -> None:
    refuse_other_tokens(build_runs([[(1, 2)], [(1, 1), (2, 2)]]), np.array([2, 3]))
    with pytest.raises(ValueError, match=told):
        refuse_other_tokens(build_runs(rows), np.array([2, 3]))


def test_runs_are_pairs() -> None:
    with pytest.raises(ValueError, match=r"entries of shape \[\]; give runs"):
        refuse_other_tokens(Ragged.of([[3], [3]]), np.array([1, 1]))


def test_people_read_one_version_as_a_number() -> None:
    assert shown([[4, 9]]) == 4 and shown([[4, 2], [4, 1]]) == 4
    assert shown([[4, 2], [5, 7]]) == [[4, 2], [5, 7]]


def test_tokens_that_no_weights_sampled_are_of_no_version_and_in_no_lag() -> None:
    """Those of an environment, between the turns of a conversation."""
    whole = build_runs([[(3, 2), (4, 3)], [(5, 0)]])
    runs = sampled_runs(whole, [np.array([1, 1, 0, 0, 1]), np.zeros(0)])
    assert [row.tolist() for row in runs] == [[[3, 2], [-1, 2], [4, 1]], [[5, 0]]]
    refuse_other_tokens(runs, np.array([5, 0]))
    assert row_lags(runs, 5).tolist() == [5 / 3, 0] and largest_lag(runs, 5) == 2
    assert shown(runs[0]) == [[3, 2], [-1, 2], [4, 1]] and shown([[3, 2], [-1, 1], [3, 4]]) == 3


def test_a_row_that_no_weights_sampled_has_no_lag() -> None:
    runs = build_runs([[(-1, 3)], [(4, 1)]])
    assert row_lags(runs, 5).tolist() == [0, 1] and largest_lag(runs, 5) == 1
