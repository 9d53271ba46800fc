"""Columns, dense and ragged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Ragged
from hybridflow.batch.columns import concat, row_numbers

ROWS = st.lists(st.lists(st.integers(-5, 5), max_size=5), max_size=7)


def lists(column: Ragged) -> list[list[int]]:
    return [row.tolist() for row in column]


@given(ROWS)
def test_packing_and_reading_back(rows: list[list[int]]) -> None:
    column = Ragged.of(rows)
    assert lists(column) == rows
    assert column.lengths.tolist() == [len(row) for row in rows]
    assert column.offsets[0] == 0 and column.offsets[-1] == len(column.values)


@given(ROWS)
def test_an_empty_row_does_not_turn_whole_numbers_into_floats(rows: list[list[int]]) -> None:
    assert Ragged.of([*rows, []]).values.dtype == np.int64


def test_arrays_tell_the_dtype_also_when_they_are_empty() -> None:
    assert Ragged.of([np.zeros(0, np.float32)]).values.dtype == np.float32
    assert Ragged.of([[], [1]], dtype=np.float32).values.dtype == np.float32
    assert Ragged.of([], dtype=np.float32).values.dtype == np.float32


def test_rows_of_vectors() -> None:
    column = Ragged.of([[[1, 2], [3, 4]], [], [[5, 6]]])
    assert column.values.shape == (3, 2)
    assert column.select(np.array([2, 1, 0])).values.tolist() == [[5, 6], [1, 2], [3, 4]]


@given(ROWS.filter(bool), st.data())
def test_select_as_a_list_would(rows: list[list[int]], data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(-len(rows), len(rows) - 1), max_size=9))
    found = Ragged.of(rows).select(np.array(numbers, dtype=np.int64))
    assert lists(found) == [rows[number] for number in numbers]
    assert len(found) == len(numbers)


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_concat_as_lists_would(parts: list[list[list[int]]]) -> None:
    found = concat([Ragged.of(part) for part in parts])
    assert isinstance(found, Ragged)
    assert lists(found) == [row for part in parts for row in part]


def test_a_row_by_number() -> None:
    column = Ragged.of([[1], [2, 3]])
    assert column[-1].tolist() == [2, 3]
    with pytest.raises(IndexError):
        column[2]


def test_selecting_does_not_share_memory() -> None:
    column = Ragged.of([[1], [2, 3]])
    column.select(np.array([0, 1])).values[0] = 99
    assert column.values.tolist() == [1, 2, 3]


def test_other_values_over_the_same_rows() -> None:
    column = Ragged.of([[1], [2, 3]])
    assert [row.tolist() for row in column.like(np.array([0.5, 1.5, 2.5]))] == [[0.5], [1.5, 2.5]]
    with pytest.raises(ValueError, match="2 values for rows that hold 3"):
        column.like(np.zeros(2))


def test_concat_refuses_to_mix() -> None:
    with pytest.raises(ValueError, match=r"Ragged.*ndarray"):
        concat([np.zeros(1), Ragged.of([[1.0]])])
    with pytest.raises(ValueError, match=r"float32.*float64"):
        concat([np.zeros(1, np.float32), np.zeros(1, np.float64)])


def test_what_is_empty_has_no_say_in_the_dtype() -> None:
    dense = concat([np.empty(0, dtype=object), np.ones(2, np.float32)])
    assert isinstance(dense, np.ndarray) and dense.dtype == np.float32
    ragged = concat([Ragged.of([[], []]), Ragged.of([[0.5]]), Ragged.of([])])
    assert isinstance(ragged, Ragged) and ragged.values.dtype == np.float64
    assert ragged.lengths.tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="Ragged"):  # rows without values are still rows
        concat([np.ones(1), Ragged.of([[]])])


@pytest.mark.parametrize("rows", [[True, False], [0.0, 1.0], np.array([True])])
def test_only_whole_numbers_name_rows(rows: object) -> None:
    with pytest.raises(TypeError, match="flatnonzero"):
        row_numbers(rows)  # type: ignore[arg-type]


def test_no_rows_may_be_an_empty_list() -> None:
    assert row_numbers([]).dtype == np.int64
