"""Batches held in this process."""

from __future__ import annotations

import numpy as np
import pytest

from hybridflow.batch import Batch, Ragged, concat


@pytest.fixture
def batch() -> Batch:
    return Batch(ids=Ragged.of([[1, 2], [], [3]]), score=np.array([0.5, 1.5, 2.5]), answer=["a", "b", "c"])


def test_rows_and_columns(batch: Batch) -> None:
    assert (batch.rows, len(batch)) == (3, 3)
    assert batch.columns == tuple(batch) == ("ids", "score", "answer")
    assert "ids" in batch and "idz" not in batch


def test_an_unknown_column_names_the_known_ones(batch: Batch) -> None:
    with pytest.raises(KeyError, match="no column 'idz'; this batch has ids, score, answer"):
        batch["idz"]


def test_kinds_of_columns(batch: Batch) -> None:
    assert batch.dense("score").tolist() == [0.5, 1.5, 2.5]
    assert batch.ragged("ids").lengths.tolist() == [2, 0, 1]
    with pytest.raises(TypeError, match="ragged"):
        batch.dense("ids")
    with pytest.raises(TypeError, match="dense"):
        batch.ragged("score")


def test_columns_must_agree_about_the_rows() -> None:
    with pytest.raises(ValueError, match=r"'a': 2, 'b': 1"):
        Batch(a=np.zeros(2), b=np.zeros(1))


def test_select_takes_rows_of_every_column(batch: Batch) -> None:
    found = batch.select([2, 0, 2])
    assert [row.tolist() for row in found.ragged("ids")] == [[3], [1, 2], [3]]
    assert found.dense("score").tolist() == [2.5, 0.5, 2.5]
    assert found.dense("answer").tolist() == ["c", "a", "c"]


def test_select_refuses_a_mask(batch: Batch) -> None:
    with pytest.raises(TypeError, match="flatnonzero"):
        batch.select([True, False, True])


def test_selecting_nothing_keeps_the_columns(batch: Batch) -> None:
    found = batch.select([])
    assert found.rows == 0 and found.columns == batch.columns


def test_union(batch: Batch) -> None:
    assert (batch | Batch(values=np.zeros(3))).columns == ("ids", "score", "answer", "values")
    assert batch.columns == ("ids", "score", "answer")
    with pytest.raises(ValueError, match="given twice: score"):
        batch | Batch(score=np.zeros(3))
    with pytest.raises(ValueError, match="different numbers of rows"):
        batch | Batch(values=np.zeros(2))


def test_keep(batch: Batch) -> None:
    assert batch.keep(["score"]).columns == ("score",)
    with pytest.raises(KeyError, match="idz"):
        batch.keep(["idz"])


def test_concat_undoes_select(batch: Batch) -> None:
    joined = concat([batch.select([0]), Batch(), batch.select([]), batch.select([1, 2])])
    assert joined.columns == batch.columns
    assert [row.tolist() for row in joined.ragged("ids")] == [[1, 2], [], [3]]
    assert joined.dense("answer").tolist() == ["a", "b", "c"]


def test_concat_names_columns_that_differ(batch: Batch) -> None:
    with pytest.raises(ValueError, match=r"\['score'\].*\['answer', 'ids', 'score'\]"):
        concat([batch, batch.keep(["score"])])
    assert concat([]).rows == 0


def test_a_rank_without_rows_may_give_an_empty_list() -> None:
    joined = concat([Batch(rewards=[]), Batch(rewards=[1.0, 0.0])])
    assert joined.dense("rewards").tolist() == [1.0, 0.0]
    assert joined.dense("rewards").dtype == np.float64


@pytest.mark.parametrize("values", [[[1]], [[1], [2]], [[1, 2], [3]], [{"a": 1}, {}], ["x", "yz"]])
def test_lists_of_objects_keep_their_entries(values: list[object]) -> None:
    column = Batch(extra=values).dense("extra")
    assert column.dtype == object and column.shape == (len(values),) and column.tolist() == values
