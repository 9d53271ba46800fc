"""Columns, dense and ragged."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Column, Ragged
from hybridflow.batch.columns import KINDS, equal, gather, kind_of, offsets_of, row_numbers, runs, select

ROWS = st.lists(st.lists(st.integers(-5, 5), max_size=5), max_size=7)


def concat(columns: list[Column]) -> Column:
    """Whole columns end to end."""
    return gather([(column, 0, len(column)) for column in columns])


def objects(values: list[object]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def ragged_objects(rows: list[list[object]]) -> Ragged:
    return Ragged(objects([value for row in rows for value in row]), offsets_of([len(row) for row in rows]))


def ragged_pairs(rows: list[list[list[int]]]) -> Ragged:
    values = np.array([value for row in rows for value in row], dtype=np.int64).reshape(-1, 2)
    return Ragged(values, offsets_of([len(row) for row in rows]))


# Rows as lists, and what makes a column of them.
FLOATS, NAMES = st.floats(-2, 2, width=32), st.sampled_from(["a", "bc", None])
MADE_BY: list[tuple[st.SearchStrategy, Callable[[list], Column]]] = [
    (st.integers(-9, 9), lambda rows: np.array(rows, dtype=np.int32)),
    (FLOATS, lambda rows: np.array(rows, dtype=np.float32)),
    (st.booleans(), lambda rows: np.array(rows, dtype=bool)),
    (NAMES, objects),
    (st.tuples(FLOATS, FLOATS).map(list), lambda rows: np.array(rows, dtype=np.float64).reshape(-1, 2)),
    (st.lists(st.integers(-9, 9), max_size=4), lambda rows: Ragged.of(rows, np.int64)),
    (st.lists(st.lists(st.integers(-9, 9), min_size=2, max_size=2), max_size=3), ragged_pairs),
    (st.lists(NAMES, max_size=3), ragged_objects),
]
EACH_KIND = pytest.mark.parametrize("values, make", MADE_BY, ids=lambda value: "")


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


def test_other_values_over_the_same_rows() -> None:
    column = Ragged.of([[1], [2, 3]])
    assert [row.tolist() for row in column.like(np.array([0.5, 1.5, 2.5]))] == [[0.5], [1.5, 2.5]]
    with pytest.raises(ValueError, match="2 values for rows that hold 3"):
        column.like(np.zeros(2))


def test_concat_refuses_to_mix() -> None:
    with pytest.raises(ValueError, match="dense float64, ragged float64"):
        concat([np.zeros(1), Ragged.of([[1.0]])])
    with pytest.raises(ValueError, match=r"float32.*float64"):
        concat([np.zeros(1, np.float32), np.zeros(1, np.float64)])
    with pytest.raises(ValueError, match=r"dense float64 \[2\], dense float64 \[3\]"):
        concat([np.zeros((1, 2)), np.zeros((1, 3))])
    with pytest.raises(ValueError, match=r"ragged int64, ragged int64 \[2\]"):
        concat([Ragged.of([[1]]), Ragged.of([[[1, 2]]])])
    with pytest.raises(ValueError, match="no columns"):
        concat([])


def test_what_is_empty_has_no_say_in_the_dtype() -> None:
    dense = concat([np.empty(0, dtype=object), np.ones(2, np.float32)])
    assert isinstance(dense, np.ndarray) and dense.dtype == np.float32
    ragged = concat([Ragged.of([[], []]), Ragged.of([[0.5]]), Ragged.of([])])
    assert isinstance(ragged, Ragged) and ragged.values.dtype == np.float64
    assert ragged.lengths.tolist() == [0, 0, 1]
    for parts in ([np.empty(0, dtype=object), ragged, Ragged.of([])], [Ragged.of([]), ragged, np.empty(0), ragged]):
        assert kind_of(concat(parts)) == "ragged float"
    with pytest.raises(ValueError, match="ragged"):  # rows without values are still rows
        concat([np.ones(1), Ragged.of([[]])])


@pytest.mark.parametrize("rows", [[True, False], [0.0, 1.0], np.array([True])])
def test_only_whole_numbers_name_rows(rows: object) -> None:
    with pytest.raises(TypeError, match="flatnonzero"):
        row_numbers(rows, 2)  # type: ignore[arg-type]


def test_no_rows_may_be_an_empty_list() -> None:
    assert row_numbers([], 0).dtype == np.int64


@pytest.mark.parametrize("rows", [3, [[0, 1]]])
def test_row_numbers_are_a_list(rows: object) -> None:
    with pytest.raises(TypeError, match="a list of row numbers"):
        row_numbers(rows, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("row", [2, -3])
@pytest.mark.parametrize("column", [np.zeros(2), Ragged.of([[1], [2]])])
def test_a_row_that_is_not_there(column: Column, row: int) -> None:
    with pytest.raises(IndexError, match=f"no row {row}; there are 2"):
        select(column, [0, row])


@pytest.mark.parametrize(
    "offsets, why",
    [
        (np.array([0, 2], np.int32), r"found \[2\] int32"),
        (np.array([[0, 2]]), r"found \[1, 2\] int64"),
        (np.zeros(0, np.int64), r"found \[0\]"),
        (np.array([1, 2]), "2 values go from 1 to 2"),
        (np.array([0, 1]), "2 values go from 0 to 1"),
        (np.array([0, 2, 1, 2]), "fall at row 1: from 2 to 1"),
    ],
)
def test_offsets_must_fit(offsets: np.ndarray, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Ragged(np.zeros(2), offsets)


@pytest.mark.parametrize(
    "dtype, kind",
    [
        (bool, "bool"), (np.int32, "int"), (np.uint8, "int"), (np.float16, "float"), (np.float64, "float"),
        (object, "object"), ("U3", "object"),
    ],
)  # fmt: skip
def test_kinds(dtype: object, kind: str) -> None:
    values = np.zeros(0, dtype=dtype)
    assert kind_of(values) == kind in KINDS
    assert kind_of(Ragged(values, np.zeros(1, np.int64))) == f"ragged {kind}" in KINDS


def test_strings_of_any_width_go_together() -> None:
    column = concat([Ragged.of([["a"], []]), Ragged.of([["bcd", "e"]])])
    assert [list(row) for row in column] == [["a"], [], ["bcd", "e"]]


@given(st.lists(st.integers(0, 6), max_size=12))
def test_runs_are_the_longest(rows: list[int]) -> None:
    found = runs(np.array(rows, dtype=np.int64))
    assert found.shape[1:] == (2,) and found.dtype == np.int64
    assert [row for start, stop in found.tolist() for row in range(start, stop)] == rows
    assert all(start < stop for start, stop in found.tolist())
    assert all(stop != start for stop, start in zip(found[:-1, 1], found[1:, 0], strict=True))


@EACH_KIND
@given(data=st.data())
def test_select_of_any_kind(values: st.SearchStrategy, make: Callable[[list], Column], data: st.DataObject) -> None:
    rows = data.draw(st.lists(values, min_size=1, max_size=6))
    numbers = data.draw(st.lists(st.integers(-len(rows), len(rows) - 1), max_size=9))
    assert equal(select(make(rows), numbers), make([rows[number] for number in numbers]))


@EACH_KIND
@given(data=st.data())
def test_gather_as_lists_would(values: st.SearchStrategy, make: Callable[[list], Column], data: st.DataObject) -> None:
    chunks = data.draw(st.lists(st.lists(values, max_size=5), min_size=1, max_size=4))
    taken, expected = [], []
    for chunk in data.draw(st.lists(st.integers(0, len(chunks) - 1), min_size=1, max_size=5)):
        start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(chunks[chunk]))] * 2)))
        taken.append((chunk, start, stop))
        expected += chunks[chunk][start:stop]
    columns = [make(chunk) for chunk in chunks]
    found = gather([(columns[chunk], start, stop) for chunk, start, stop in taken])
    assert equal(found, make(expected))


@pytest.mark.parametrize("make", [np.array, lambda rows: Ragged.of([[row] for row in rows])])
@pytest.mark.parametrize("run", [(0, 1, 3), (0, 2, 1), (0, -1, 1), (1, 0, 1)])
def test_gather_refuses_rows_that_are_not_there(make: Callable[[list], Column], run: tuple[int, int, int]) -> None:
    columns = [make([1, 2]), make([])]
    with pytest.raises(IndexError, match=rf"no rows {run[1]}:{run[2]} in run 0, of {len(columns[run[0]])} rows"):
        gather([(columns[run[0]], *run[1:]), (columns[0], 0, 1)])


@pytest.mark.parametrize("chunks", [[np.ones(2), np.ones(2, int)], [np.ones(2), Ragged.of([[1.0]])]])
def test_gather_refuses_to_mix(chunks: list[Column]) -> None:
    with pytest.raises(ValueError, match="different kinds"):
        gather([(chunk, 0, 1) for chunk in chunks])


@pytest.mark.parametrize("column", [np.arange(6), Ragged.of([[1, 2], [3], [], [4, 5, 6], [7], [8]])])
def test_one_run_is_a_view_and_more_are_one_copy(column: Column) -> None:
    values = column.values if isinstance(column, Ragged) else column

    def shares(found: Column) -> bool:
        return np.shares_memory(found.values if isinstance(found, Ragged) else found, values)

    assert shares(select(column, [3, 4, 5])) and shares(gather([(column, 1, 5)]))
    assert shares(concat([column, column[:0] if isinstance(column, np.ndarray) else Ragged.of([])]))
    assert not shares(select(column, [0, 3, 4])) and not shares(concat([column, column]))


def test_all_of_a_ragged_column_is_that_column() -> None:
    column = Ragged.of([[1, 2], [3]])
    assert concat([column]) is column and column.select([0, 1]) is column
    assert np.shares_memory(column.select([0]).offsets, column.offsets)


def test_columns_are_read_only_and_their_maker_may_still_write() -> None:
    values, offsets = np.arange(4), np.array([0, 1, 4])
    column = Ragged(values, offsets)
    derived = [column.like(values), column.select([1]), column.select([1, 0]), concat([column, column])]
    for one in (column, Ragged.of([values]), *derived):
        for array in (one.values, one.offsets, one[0]):
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        column.values = values  # type: ignore[misc]
    assert values.flags.writeable and offsets.flags.writeable
    for array in (select(values, [1, 2]), select(values, [2, 1]), concat([values]), concat([values, values])):
        assert not array.flags.writeable  # type: ignore[union-attr]


@pytest.mark.parametrize("out_of_band", [False, True])
@pytest.mark.parametrize("column", [Ragged.of([[1], [], [2, 3]]), ragged_objects([["a", None], []])])
def test_pickling_keeps_a_column_read_only(column: Ragged, out_of_band: bool) -> None:
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(column, protocol=5, buffer_callback=buffers.append if out_of_band else None)
    # A bytearray is what a receiver that writes into its own memory would have.
    found = pickle.loads(text, buffers=[bytearray(buffer) for buffer in buffers])
    assert found == column and found is not column
    assert not found.values.flags.writeable and not found.offsets.flags.writeable
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.values = column.values


def test_a_view_is_pickled_without_what_it_is_a_view_of() -> None:
    whole = Ragged.of(np.zeros((100, 100)))
    assert len(pickle.dumps(whole.select([7]))) < 2_000


def test_equal_by_content() -> None:
    column = Ragged.of([[1.0, np.nan], [2.0]])
    assert column == Ragged.of([[1.0, np.nan], [2.0]])
    assert column != Ragged.of([[1.0], [np.nan, 2.0]]) and column != Ragged.of([[1.0, 3.0], [2.0]]) and column != 1
    assert ragged_objects([["a", np.nan, {"b": 1}, np.ones(2)]]) == ragged_objects(
        [["a", np.nan, {"b": 1}, np.ones(2)]]
    )
    assert ragged_objects([[np.ones(2)]]) != ragged_objects([[np.zeros(2)]])
    assert not equal(np.ones(1), np.ones(1, int)) and not equal(np.ones((1, 2)), np.ones((1, 1)))
    with pytest.raises(TypeError, match="unhashable"):
        hash(column)
