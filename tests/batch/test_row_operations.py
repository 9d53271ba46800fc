"""The row operations of a batch are those of a list of rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Batch, Ragged, concat
from hybridflow.batch.columns import offsets_of

Row = dict[str, object]
ROW = st.fixed_dictionaries(
    {
        "int": st.integers(-9, 9),
        "float": st.floats(-2, 2, width=32),
        "bool": st.booleans(),
        "object": st.sampled_from(["a", "bc", None]),
        "vector": st.lists(st.integers(0, 9), min_size=2, max_size=2),
        "tokens": st.lists(st.integers(0, 9), max_size=4),
        "pairs": st.lists(st.lists(st.floats(-2, 2), min_size=2, max_size=2), max_size=3),
        "words": st.lists(st.sampled_from(["x", "yz"]), max_size=2),
    }
)
DENSE = {"int": np.int64, "float": np.float32, "bool": bool, "object": object, "vector": np.int64}
RAGGED = {"tokens": np.int64, "pairs": np.float64, "words": object}
TRAILING = {"vector": (2,), "pairs": (2,)}


def build_batch(rows: list[Row]) -> Batch:
    def array(name: str, values: list[object], dtype: type) -> np.ndarray:
        return np.array(values, dtype=dtype).reshape(len(values), *TRAILING.get(name, ()))

    dense = {name: array(name, [row[name] for row in rows], dtype) for name, dtype in DENSE.items()}
    ragged = {
        name: Ragged(
            array(name, [v for row in rows for v in row[name]], dtype), offsets_of([len(r[name]) for r in rows])
        )  # type: ignore[attr-defined, arg-type]
        for name, dtype in RAGGED.items()
    }
    return Batch(**dense, **ragged)


def rows_of(batch: Batch) -> list[Row]:
    return [
        {
            name: column[row].tolist() if isinstance(column[row], np.ndarray) else column[row]
            for name, column in batch.items()
        }
        for row in range(len(batch))
    ]


def assert_same(batch: Batch, rows: list[Row]) -> None:
    assert rows_of(batch) == rows
    assert batch == build_batch(rows)  # dtypes and trailing shapes too, when no row is left


ROWS = st.lists(ROW, max_size=6)


@given(ROWS, st.data())
def test_slice(rows: list[Row], data: st.DataObject) -> None:
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(rows))] * 2)))
    assert_same(build_batch(rows).slice(start, stop), rows[start:stop])


@pytest.mark.parametrize("start, stop", [(-1, 1), (0, 4), (2, 1)])
def test_slice_refuses_rows_that_are_not_there(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match=f"no rows {start}:{stop}; there are 3"):
        Batch(x=[1, 2, 3]).slice(start, stop)


@given(ROWS, st.data())
def test_select_and_permute(rows: list[Row], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(rows))))
    assert_same(build_batch(rows).permute(order), [rows[row] for row in order])
    some = data.draw(st.lists(st.sampled_from(order), max_size=8)) if rows else []
    assert_same(build_batch(rows).select(some), [rows[row] for row in some])


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [1, 2, 3], [0, 1, 2, 3], [-1, 0, 1]])
def test_permute_wants_every_row_once(order: list[int]) -> None:
    with pytest.raises(ValueError, match="an order of 3 rows"):
        Batch(x=[1, 2, 3]).permute(order)


@given(ROWS, st.integers(1, 3))
def test_repeat(rows: list[Row], times: int) -> None:
    assert_same(build_batch(rows).repeat(times), [row for row in rows for _ in range(times)])
    assert_same(build_batch(rows).repeat(times, interleave=False), rows * times)


def test_repeat_keeps_each_row_at_least_once() -> None:
    with pytest.raises(ValueError, match="not 0 times"):
        Batch(x=[1]).repeat(0)


@given(ROWS, st.integers(1, 8))
def test_split_into_even_parts(rows: list[Row], parts: int) -> None:
    found = build_batch(rows).split(parts)
    sizes = [len(part) for part in found]
    assert len(sizes) == parts and sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1
    assert_same(concat(found), rows)


@given(st.lists(ROWS, max_size=4))
def test_split_by_sizes_undoes_concat(parts: list[list[Row]]) -> None:
    rows = [row for part in parts for row in part]
    found = build_batch(rows).split([len(part) for part in parts])
    assert len(found) == len(parts)
    for batch, part in zip(found, parts, strict=True):
        assert_same(batch, part)


@pytest.mark.parametrize("sizes", [[1, 1], [4], [], [4, -1]])
def test_split_refuses_sizes_that_are_not_the_rows(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"sum to {sum(sizes)}; there are 3"):
        Batch(x=[1, 2, 3]).split(sizes)
    with pytest.raises(ValueError, match="1 part or more, not 0"):
        Batch(x=[1, 2, 3]).split(0)


@given(ROWS, st.sampled_from(["int", "float", "bool", "object"]))
def test_group_by(rows: list[Row], name: str) -> None:
    expected: dict[object, list[Row]] = {}
    for row in rows:
        expected.setdefault(row[name], []).append(row)
    found = build_batch(rows).group_by(name)
    assert list(found) == list(expected)
    assert {type(key) for key in found} <= {int, float, bool, str, type(None)}
    for key, group in found.items():
        assert_same(group, expected[key])


def test_group_by_wants_one_value_a_row() -> None:
    batch = Batch(pair=np.zeros((2, 2)), ids=Ragged.of([[1], [2]]))
    with pytest.raises(ValueError, match=r"column 'pair' has entries of shape \[2\]"):
        batch.group_by("pair")
    with pytest.raises(TypeError, match="column 'ids' is ragged"):
        batch.group_by("ids")


def test_rows_in_order_are_not_copied() -> None:
    batch = Batch(ids=Ragged.of([[1], [2, 3], [4]]), x=np.arange(3), y=["a", "b", "c"])
    for part in (*batch.split(2), *batch.split([0, 3]), *batch.group_by("y").values(), batch.permute([0, 1, 2])):
        assert np.shares_memory(part.dense("x"), batch.dense("x")) or not len(part)
        assert np.shares_memory(part.ragged("ids").values, batch.ragged("ids").values) or not len(part)
