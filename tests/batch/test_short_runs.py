"""Many short runs of rows, joined entry by entry: as though each had been copied."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Batch, Column, Ragged, short_runs
from hybridflow.batch.batch import gather
from hybridflow.batch.columns import equal, offsets_of, select

NAMES = ("dense", "vectors", "words", "ragged", "pairs", "ragged_words")
SEED = st.integers(0, 2**31)


def build_ragged(values: np.ndarray, lengths: np.ndarray) -> Ragged:
    offsets = offsets_of(lengths)
    return Ragged(values[: offsets[-1]], offsets)


def build_batch(rows: int, longest: int, seed: int) -> Batch:
    """A batch with a column of each kind; some ragged rows are empty."""
    random = np.random.default_rng(seed)
    lengths = random.integers(0, longest + 1, rows)
    room = int(lengths.sum())
    return Batch(
        dense=random.random(rows),
        vectors=random.random((rows, 2), dtype=np.float32),
        words=random.integers(0, 9, rows).astype(str).astype(object),
        ragged=build_ragged(random.integers(0, 99, room), lengths),
        pairs=build_ragged(random.random((room, 2)), lengths),
        ragged_words=build_ragged(random.integers(0, 9, room).astype(str).astype(object), lengths),
    )


def build_runs(batches: list[Batch], count: int, seed: int) -> list[tuple[Batch, int, int]]:
    random = np.random.default_rng(seed)
    taken = []
    for number in random.integers(0, len(batches), count):
        start, stop = np.sort(random.integers(0, len(batches[number]) + 1, 2)).tolist()
        taken.append((batches[number], start, min(stop, start + 3)))
    return taken


def one_by_one(runs: list[tuple[Batch, int, int]], name: str) -> list[object]:
    return [batch[name][row] for batch, start, stop in runs for row in range(start, stop)]


def assert_rows(column: Column, rows: list[object]) -> None:
    assert len(column) == len(rows)
    assert all(np.array_equal(column[number], row) for number, row in enumerate(rows))  # type: ignore[arg-type]


@given(st.integers(1, 4), st.integers(0, 6), st.integers(short_runs.MANY, 40), SEED)
def test_gather_gives_the_rows_of_each_run_in_order(sources: int, longest: int, count: int, seed: int) -> None:
    batches = [build_batch(7, longest, seed + number) for number in range(sources)]
    runs = build_runs(batches, count, seed)
    found = gather(runs, NAMES)
    for name in NAMES:
        assert_rows(found[name], one_by_one(runs, name))


@given(st.integers(0, 6), SEED)
def test_select_gives_the_rows_asked_for(longest: int, seed: int) -> None:
    batch = build_batch(50, longest, seed)
    rows = np.random.default_rng(seed).integers(0, 50, 70)
    for name in NAMES:
        assert_rows(select(batch[name], rows), [batch[name][row] for row in rows])


@pytest.mark.parametrize("longest", [short_runs.SHORT // 2, 4 * short_runs.SHORT])
def test_runs_of_either_length_are_joined_alike(longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [build_batch(20, longest, seed) for seed in range(2)]
    runs = [(batches[row % 2], row, row + 1) for row in range(20)]
    found = gather(runs, NAMES)
    monkeypatch.setattr(short_runs, "SHORT", 10**9 if longest > short_runs.SHORT else 0)
    other = gather(runs, NAMES)
    assert all(equal(found[name], other[name]) for name in NAMES)


def test_what_is_empty_has_no_say_in_the_dtype() -> None:
    full = Batch(a=Ragged.of([[0.5], []] * 10), b=np.ones(20, np.float32))
    empty = Batch(a=np.empty(0, dtype=object), b=np.empty(0, dtype=object))
    blank = Batch(a=Ragged.of([[]]), b=np.ones(1, np.float32))
    runs = [(empty, 0, 0), (blank, 0, 1), *[(full, row, row + 1) for row in range(20)]]
    found = gather(runs, ["a", "b"])
    ragged, dense = found["a"], found["b"]
    assert isinstance(ragged, Ragged) and ragged.values.dtype == np.float64
    assert ragged.lengths.tolist() == [0, *[1, 0] * 10]
    assert isinstance(dense, np.ndarray) and dense.dtype == np.float32 and len(dense) == 21


def test_a_column_without_any_values_may_have_another_shape() -> None:
    pairs = Batch(pairs=Ragged(np.ones((3, 2)), np.array([0, 2, 3])))
    empty = Batch(pairs=Ragged(np.zeros(0), np.array([0, 0])))
    found = gather([(pairs, 0, 2), (empty, 0, 1)] * short_runs.MANY, ("pairs",))["pairs"]
    assert isinstance(found, Ragged)
    assert found.values.shape == (3 * short_runs.MANY, 2)
    assert found.lengths.tolist() == [2, 1, 0] * short_runs.MANY


def test_refusals_are_those_of_a_few_runs() -> None:
    batch = build_batch(3, 2, 0)
    with pytest.raises(IndexError, match="no rows 2:4 in run 16, of 3 rows"):
        gather([*[(batch, 0, 1)] * short_runs.MANY, (batch, 2, 4)], ["dense"])
    other = Batch(dense=np.ones(3, int))
    with pytest.raises(ValueError, match=r"column 'dense': cannot join columns of different kinds"):
        gather([*[(batch, 0, 1)] * short_runs.MANY, (other, 0, 1)], ["dense"])


def test_joined_rows_are_read_only() -> None:
    batch = build_batch(40, 3, 0)
    found = gather([(batch, row, row + 1) for row in range(0, 40, 2)], NAMES)
    for column in (*found.values(), select(batch["ragged"], np.arange(0, 40, 2))):
        values = column.values if isinstance(column, Ragged) else column
        assert not values.flags.writeable
