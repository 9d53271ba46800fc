"""References: every operation on a BatchRef is that operation on the rows that it names."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import pprint
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import numpy as np
import pytest
import rich.pretty
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.batch import concat as concat_batches
from hybridflow.batch.joining import concat
from hybridflow.batch.row_source import Source


def as_lists(batch: Batch) -> dict[str, list[object]]:
    return {name: [np.asarray(value).tolist() for value in batch[name]] for name in sorted(batch.columns)}


def build_chunk(first: int, rows: int) -> Batch:
    """Rows that tell where they are from."""
    numbers = range(first, first + rows)
    return Batch(
        ids=Ragged.of([[n] * (n % 3) for n in numbers], dtype=np.int64), score=np.array([*numbers], dtype=float)
    )


referred = BatchRef.from_local


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Batch, BatchRef]:
    """Some rows both ways, the reference over several chunks and shuffled."""
    sizes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    chunks = [build_chunk(10 * i, size) for i, size in enumerate(sizes)]
    batch, ref = concat_batches(chunks), concat([referred(c) for c in chunks])
    if not len(batch):
        return batch, ref
    rows = draw(st.lists(st.integers(-len(batch), len(batch) - 1), max_size=8))
    return batch.select(rows), ref.select(rows)


def assert_same(ref: BatchRef, batch: Batch) -> None:
    assert len(ref) == ref.rows == len(batch)
    assert sorted(ref.columns) == sorted(batch.columns)
    if len(batch):
        assert as_lists(ref.get()) == as_lists(batch)


@given(pairs())
def test_select_and_concat(pair: tuple[Batch, BatchRef]) -> None:
    batch, ref = pair
    assert_same(ref, batch)


@given(st.lists(pairs(), min_size=1, max_size=3))
def test_concat_of_any(parts: list[tuple[Batch, BatchRef]]) -> None:
    assert_same(concat([ref for _, ref in parts]), concat_batches([batch for batch, _ in parts]))


@given(pairs())
def test_union(pair: tuple[Batch, BatchRef]) -> None:
    batch, ref = pair
    more = Batch(values=np.arange(len(batch)) * 2.0)
    assert_same(ref | referred(more), batch | more)


@given(pairs(), st.data())
def test_select_after_union(pair: tuple[Batch, BatchRef], data: st.DataObject) -> None:
    batch, ref = pair
    more = Batch(values=np.arange(len(batch)) * 2.0)
    rows = data.draw(st.permutations(range(len(batch))))
    assert_same((ref | referred(more)).select(rows), (batch | more).select(rows))


@given(pairs(), st.integers(1, 3))
def test_repeat_makes_groups(pair: tuple[Batch, BatchRef], times: int) -> None:
    batch, ref = pair
    rows = np.repeat(np.arange(len(batch)), times)
    copies = np.tile(np.arange(times), len(batch))
    assert_same(ref.repeat(times), batch.select(rows) | Batch(group_id=rows, copy_id=copies))


@given(pairs(), st.integers(1, 5))
def test_split_is_even_and_concat_undoes_it(pair: tuple[Batch, BatchRef], parts: int) -> None:
    batch, ref = pair
    cut = ref.repeat(2).split(parts)
    assert len(cut) == parts
    assert max(map(len, cut)) - min(map(len, cut)) <= 1
    if len(batch):
        assert_same(concat(cut), ref.repeat(2).get())


@given(pairs(), st.data())
def test_a_part_of_a_call_knows_its_rows(pair: tuple[Batch, BatchRef], data: st.DataObject) -> None:
    _, ref = pair
    start = data.draw(st.integers(0, len(ref)))
    stop = data.draw(st.integers(start, len(ref)))
    part = ref.part(start, stop)
    assert part.get() == ref.slice(start, stop).get() and list(part.origin or []) == list(range(start, stop))
    again = part.part(0, len(part) // 2)  # of a part: the caller's rows still
    assert list(again.origin or []) == list(range(start, start + len(part) // 2))


def test_marks_travel_with_rows_and_with_columns() -> None:
    ref = referred(build_chunk(0, 2)).repeat(2)
    assert ref.select([3, 0]).driver_columns["group_id"].tolist() == [1, 0]
    assert ref.select_columns(["score"]).driver_columns["copy_id"].tolist() == [0, 1, 0, 1]
    union = referred(Batch(values=np.zeros(4))) | ref
    assert union.driver_columns["group_id"].tolist() == [0, 0, 1, 1]
    assert union.columns == ("values", "ids", "score", "group_id", "copy_id")


def test_keep_leaves_out_what_no_column_needs() -> None:
    ref = referred(build_chunk(0, 2)) | referred(Batch(values=np.zeros(2)))
    assert ref.select_columns(["values"]).columns == ("values",)
    assert ref.select_columns(["score"]).columns == ("score",)
    assert ref.select_columns([]).columns == () and len(ref.select_columns([])) == 2


def test_chunks_that_no_row_names_are_let_go() -> None:
    ref = concat([referred(build_chunk(10 * i, 2)) for i in range(3)])
    (source,) = ref.select([5, 0, 4]).sources
    assert [(c.get().dense("score")[0], a, b) for c, a, b in source.runs] == [(20.0, 1, 2), (0.0, 0, 1), (20.0, 0, 1)]
    assert len(ref.select([]).sources[0].chunks) == 1  # it tells what the columns are like
    assert concat([ref.select([]), ref.select([4])]).sources[0].chunks == (source.chunks[0],)
    assert ref.select([]).get().schema == build_chunk(0, 1).schema


def test_operations_never_look_into_a_chunk() -> None:
    opaque = BatchRef(3, (Source(("x",), ((object(), 0, 1), (object(), 0, 2))),))
    for ref in (opaque.select([2, 0]), opaque.repeat(2), concat([opaque, opaque]), opaque.split(2)[0]):
        assert ref.columns[0] == "x"


def test_union_refuses_what_does_not_fit() -> None:
    ref = referred(build_chunk(0, 2))
    with pytest.raises(ValueError, match="union of 2 rows"):
        ref | referred(Batch(values=np.zeros(3)))
    with pytest.raises(ValueError, match="given twice: ids, score"):
        ref | ref
    with pytest.raises(ValueError, match="given twice: group_id"):
        ref.repeat(1) | referred(Batch(group_id=np.zeros(2)))


def test_union_refuses_rows_of_other_groups() -> None:
    ref = referred(build_chunk(0, 2)).repeat(2)
    values = referred(Batch(values=np.zeros(2))).repeat(2)
    assert (ref | values).driver_columns["group_id"].tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="differ in copy_id, group_id"):
        ref | values.select([3, 2, 1, 0])


def test_concat_refuses_other_columns() -> None:
    ref, values = referred(build_chunk(0, 2)), referred(Batch(values=np.zeros(2)))
    with pytest.raises(ValueError, match="different columns"):
        concat([ref, values])
    with pytest.raises(ValueError, match="different columns"):
        concat([ref, ref.repeat(1)])
    assert concat([]).rows == 0


@given(pairs(), pairs())
def test_concat_of_columns_that_came_in_different_calls(
    one: tuple[Batch, BatchRef], two: tuple[Batch, BatchRef]
) -> None:
    (a, ref_a), (b, ref_b) = one, two
    more_a, more_b = Batch(values=np.arange(len(a)) * 2.0), Batch(values=np.arange(len(b)) * 3.0)
    assert_same(concat([ref_a | referred(more_a), referred(more_b) | ref_b]), concat_batches([a | more_a, b | more_b]))


@given(pairs())
def test_metadata_is_that_of_the_rows(pair: tuple[Batch, BatchRef]) -> None:
    batch, ref = pair
    known = ref.repeat(2).metadata()
    assert known.rows == 2 * len(batch)
    if len(batch):
        assert known.kinds == {"ids": "ragged int", "score": "float", "group_id": "int", "copy_id": "int"}
        assert known.lengths["ids"].tolist() == np.repeat(batch.ragged("ids").lengths, 2).tolist()
        assert set(known.lengths) == {"ids"}


def test_lengths_of_a_dense_column_are_refused() -> None:
    with pytest.raises(KeyError, match=r"'score' is float; only ragged columns have lengths"):
        referred(build_chunk(0, 2)).lengths("score")
    with pytest.raises(KeyError, match=r"no column 'no'"):
        referred(build_chunk(0, 2)).lengths("no")


def test_a_later_reference_is_asked_for_once_and_only_when_needed() -> None:
    asked: list[int] = []

    def find() -> BatchRef:
        asked.append(1)
        return referred(build_chunk(0, 3))

    ref = BatchRef.deferred(find)
    assert asked == []
    assert ref.rows == 3 and ref.columns == ("ids", "score") and ref.origin is None and ref.driver_columns == {}
    assert as_lists(ref.select([2]).get()) == as_lists(build_chunk(2, 1))
    assert asked == [1]
    with pytest.raises(AttributeError, match="no 'nothing'"):
        _ = ref.nothing


def assert_pickles(ref: BatchRef) -> None:
    with suppress(AttributeError, pickle.PicklingError):  # what waits is a closure
        pickle.dumps(ref)


def looks() -> dict[str, Callable[[BatchRef], object]]:
    """What a person, a shell, a debugger or a test's report does to a value without a question about rows."""
    return {
        "repr": repr,
        "format": "{}".format,
        "pretty": pprint.pformat,
        "rich": lambda ref: rich.pretty.pretty_repr([ref]),
        "hasattr": lambda ref: [hasattr(ref, name) for name in ("shape", "keys", "_repr_html_", "__array__")],
        "completion": lambda ref: [dir(ref), vars(ref)],
        "equality": lambda ref: (ref == 3, ref == ref, ref in [ref], hash(ref)),
        "copy": lambda ref: [copy.copy(ref), copy.deepcopy(ref)],
        "pickle": assert_pickles,
        "awaitable": inspect.isawaitable,
        "signature": lambda ref: (callable(ref), isinstance(ref, Mapping | Iterable), dataclasses.is_dataclass(ref)),
    }


@pytest.mark.parametrize("look", looks())
def test_to_look_at_a_deferred_reference_waits_for_nothing(look: str) -> None:
    def find() -> BatchRef:
        raise AssertionError("it waits for ranks")

    ref = BatchRef.deferred(find)
    looks()[look](ref)
    with pytest.raises(AssertionError, match="it waits for ranks"):
        len(ref)


def test_a_reference_shows_what_it_knows() -> None:
    known = referred(build_chunk(0, 2)).repeat(2)
    assert repr(known) == "BatchRef(4 rows: ids, score, group_id, copy_id)"
    ref = BatchRef.deferred(lambda: known)
    assert repr(ref) == "BatchRef(of rows that are not known yet)"
    assert len(ref) == 4 and repr(ref) == repr(known)


def test_what_a_deferred_reference_lacks_is_an_attribute_error_before_and_after() -> None:
    ref = BatchRef.deferred(lambda: referred(build_chunk(0, 2)))
    for _ in range(2):
        with pytest.raises(AttributeError, match="BatchRef has no 'shape'"):
            _ = ref.shape
        assert len(ref) == 2


def test_an_index_says_what_to_call() -> None:
    ref = referred(build_chunk(0, 2))
    with pytest.raises(TypeError, match=r"its rows are elsewhere: ref.slice\(0, 4\) and ref.select"):
        _ = ref[0:4]
    with pytest.raises(TypeError, match=r"ref.select_columns\(\['score'\]\) refers to a column, and .get\(\)"):
        _ = ref["score"]


def test_rows_by_a_mark() -> None:
    groups = referred(build_chunk(0, 2)).repeat(2, interleave=False).group_by("group_id")
    assert {group: ref.get().dense("score").tolist() for group, ref in groups.items()} == {0: [0.0, 0.0], 1: [1.0, 1.0]}
    with pytest.raises(KeyError, match=r"the controller knows the values of group_id, copy_id, not of 'score'"):
        referred(build_chunk(0, 2)).repeat(1).group_by("score")


@pytest.mark.parametrize("rows", [[True, False], [0.5]])
def test_select_refuses_a_mask(rows: list[object]) -> None:
    with pytest.raises(TypeError, match="flatnonzero"):
        referred(build_chunk(0, 2)).select(rows)  # type: ignore[arg-type]
