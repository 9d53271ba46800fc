"""References: every operation on a BatchRef is that operation on the rows that it names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.batch import concat as concat_batches
from hybridflow.batch.ref import Source, concat


def resolve(ref: BatchRef) -> Batch:
    """The rows of a reference whose handles are batches."""
    found = Batch(**ref.marks)
    for source in ref.sources:
        starts = np.cumsum([0, *(len(chunk) for chunk in source.handles)])
        rows = starts[source.where[:, 0]] + source.where[:, 1]
        found |= concat_batches([chunk.keep(source.columns) for chunk in source.handles]).select(rows)
    return found


def plain(batch: Batch) -> dict[str, list[object]]:
    return {name: [np.asarray(value).tolist() for value in batch[name]] for name in sorted(batch.columns)}


def chunk(first: int, rows: int) -> Batch:
    """Rows that tell where they are from."""
    numbers = range(first, first + rows)
    return Batch(
        ids=Ragged.of([[n] * (n % 3) for n in numbers], dtype=np.int64), score=np.array([*numbers], dtype=float)
    )


def referred(batch: Batch) -> BatchRef:
    return BatchRef.of(batch, len(batch), batch.columns)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Batch, BatchRef]:
    """Some rows both ways, the reference over several chunks and shuffled."""
    sizes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    chunks = [chunk(10 * i, size) for i, size in enumerate(sizes)]
    batch, ref = concat_batches(chunks), concat([referred(c) for c in chunks])
    if not len(batch):
        return batch, ref
    rows = draw(st.lists(st.integers(-len(batch), len(batch) - 1), max_size=8))
    return batch.select(rows), ref.select(rows)


def same(ref: BatchRef, batch: Batch) -> None:
    assert len(ref) == ref.rows == len(batch)
    assert sorted(ref.columns) == sorted(batch.columns)
    if len(batch):
        assert plain(resolve(ref)) == plain(batch)


@given(pairs())
def test_select_and_concat(pair: tuple[Batch, BatchRef]) -> None:
    batch, ref = pair
    same(ref, batch)


@given(st.lists(pairs(), min_size=1, max_size=3))
def test_concat_of_any(parts: list[tuple[Batch, BatchRef]]) -> None:
    same(concat([ref for _, ref in parts]), concat_batches([batch for batch, _ in parts]))


@given(pairs())
def test_union(pair: tuple[Batch, BatchRef]) -> None:
    batch, ref = pair
    more = Batch(values=np.arange(len(batch)) * 2.0)
    same(ref | referred(more), batch | more)


@given(pairs(), st.data())
def test_select_after_union(pair: tuple[Batch, BatchRef], data: st.DataObject) -> None:
    batch, ref = pair
    more = Batch(values=np.arange(len(batch)) * 2.0)
    rows = data.draw(st.permutations(range(len(batch))))
    same((ref | referred(more)).select(rows), (batch | more).select(rows))


@given(pairs(), st.integers(1, 3))
def test_repeat_makes_groups(pair: tuple[Batch, BatchRef], times: int) -> None:
    batch, ref = pair
    rows = np.repeat(np.arange(len(batch)), times)
    copies = np.tile(np.arange(times), len(batch))
    same(ref.repeat(times), batch.select(rows) | Batch(group_id=rows, copy_id=copies))


@given(pairs(), st.integers(1, 5))
def test_split_is_even_and_concat_undoes_it(pair: tuple[Batch, BatchRef], parts: int) -> None:
    batch, ref = pair
    cut = ref.repeat(2).split(parts)
    assert len(cut) == parts
    assert max(map(len, cut)) - min(map(len, cut)) <= 1
    if len(batch):
        same(concat(cut), resolve(ref.repeat(2)))


def test_marks_travel_with_rows_and_with_columns() -> None:
    ref = referred(chunk(0, 2)).repeat(2)
    assert ref.select([3, 0]).marks["group_id"].tolist() == [1, 0]
    assert ref.keep(["score"]).marks["copy_id"].tolist() == [0, 1, 0, 1]
    union = referred(Batch(values=np.zeros(4))) | ref
    assert union.marks["group_id"].tolist() == [0, 0, 1, 1]
    assert union.columns == ("values", "ids", "score", "group_id", "copy_id")


def test_keep_leaves_out_what_no_column_needs() -> None:
    ref = referred(chunk(0, 2)) | referred(Batch(values=np.zeros(2)))
    assert ref.keep(["values"]).columns == ("values",)
    assert ref.keep(["score"]).columns == ("ids", "score")  # a chunk is fetched whole or not at all


def test_chunks_that_no_row_names_are_let_go() -> None:
    ref = concat([referred(chunk(10 * i, 2)) for i in range(3)])
    (source,) = ref.select([5, 0, 4]).sources
    assert [handle.dense("score")[0] for handle in source.handles] == [0.0, 20.0]
    assert source.where.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert ref.select([]).sources[0].handles == ()


def test_operations_never_look_into_a_handle() -> None:
    opaque = BatchRef(3, (Source(("x",), (object(), object()), np.array([[0, 0], [1, 0], [1, 1]])),))
    for ref in (opaque.select([2, 0]), opaque.repeat(2), concat([opaque, opaque]), opaque.split(2)[0]):
        assert ref.columns[0] == "x"


def test_union_refuses_what_does_not_fit() -> None:
    ref = referred(chunk(0, 2))
    with pytest.raises(ValueError, match="union of 2 rows"):
        ref | referred(Batch(values=np.zeros(3)))
    with pytest.raises(ValueError, match="given twice: ids, score"):
        ref | ref
    with pytest.raises(ValueError, match="given twice: group_id"):
        ref.repeat(1) | referred(Batch(group_id=np.zeros(2)))


def test_union_refuses_rows_of_other_groups() -> None:
    ref = referred(chunk(0, 2)).repeat(2)
    values = referred(Batch(values=np.zeros(2))).repeat(2)
    assert (ref | values).marks["group_id"].tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="differ in copy_id, group_id"):
        ref | values.select([3, 2, 1, 0])


def test_concat_refuses_other_columns() -> None:
    ref, values = referred(chunk(0, 2)), referred(Batch(values=np.zeros(2)))
    with pytest.raises(ValueError, match="different columns"):
        concat([ref, values])
    with pytest.raises(ValueError, match="different columns"):
        concat([ref, ref.repeat(1)])
    with pytest.raises(ValueError, match="join before the union"):
        concat([ref | values, values | ref])
    assert concat([]).rows == 0


@pytest.mark.parametrize("rows", [[True, False], [0.5]])
def test_select_refuses_a_mask(rows: list[object]) -> None:
    with pytest.raises(TypeError, match="flatnonzero"):
        referred(chunk(0, 2)).select(rows)  # type: ignore[arg-type]
