"""Batches held in this process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from hybridflow.batch import Batch, Ragged, concat


@pytest.fixture
def batch() -> Batch:
    return Batch(ids=Ragged.of([[1, 2], [], [3]]), score=np.array([0.5, 1.5, 2.5]), answer=["a", "b", "c"])


def test_rows_and_columns(batch: Batch) -> None:
    assert (batch.rows, len(batch)) == (3, 3)
    assert batch.columns == tuple(dict(batch.items())) == ("ids", "score", "answer")
    assert "ids" in batch and "idz" not in batch


def test_a_batch_is_no_mapping() -> None:
    """Its length is that of its rows: `keys`, whose length was so too, gave one name and called itself five."""
    batch = Batch(score=np.zeros(5))
    assert len(batch) == 5 and len(batch.items()) == len(batch.columns) == 1
    assert not isinstance(batch, Mapping | Iterable) and not hasattr(batch, "keys")
    with pytest.raises(TypeError, match="not iterable"):
        iter(batch)  # type: ignore[call-overload]


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
    with pytest.raises(ValueError, match=r"union of 3 rows \('ids', .* with 2 rows \('values',\)"):
        batch | Batch(values=np.zeros(2))


def test_keep(batch: Batch) -> None:
    assert batch.select_columns(["score"]).columns == ("score",)
    with pytest.raises(KeyError, match="idz"):
        batch.select_columns(["idz"])


def test_concat_undoes_select(batch: Batch) -> None:
    joined = concat([batch.select([0]), Batch(), batch.select([]), batch.select([1, 2])])
    assert joined.columns == batch.columns
    assert [row.tolist() for row in joined.ragged("ids")] == [[1, 2], [], [3]]
    assert joined.dense("answer").tolist() == ["a", "b", "c"]


def test_concat_names_columns_that_differ(batch: Batch) -> None:
    with pytest.raises(ValueError, match=r"\['score'\].*\['answer', 'ids', 'score'\]"):
        concat([batch, batch.select_columns(["score"])])
    assert concat([]).rows == 0


def test_concat_names_the_column_whose_kind_differs(batch: Batch) -> None:
    with pytest.raises(ValueError, match=r"column 'score': cannot join.*float32.*float64"):
        concat([batch.select_columns(["score"]), Batch(score=np.zeros(1, np.float32))])


def test_a_rank_without_rows_may_give_an_empty_list() -> None:
    joined = concat([Batch(rewards=[]), Batch(rewards=[1.0, 0.0])])
    assert joined.dense("rewards").tolist() == [1.0, 0.0]
    assert joined.dense("rewards").dtype == np.float64


@pytest.mark.parametrize("values", [[[1]], [[1], [2]], [[1, 2], [3]], [{"a": 1}, {}], ["x", "yz"]])
def test_lists_of_objects_keep_their_entries(values: list[object]) -> None:
    column = Batch(extra=values).dense("extra")
    assert column.dtype == object and column.shape == (len(values),) and column.tolist() == values


@pytest.mark.parametrize("values", [["a", 1], [1, "a"], [1, None], [0.5, [1]]])
def test_numbers_beside_others_stay_what_they_are(values: list[object]) -> None:
    assert Batch(extra=values).dense("extra").tolist() == values


def test_what_has_an_array_becomes_it() -> None:
    class Tensor:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return np.ones((2, 3), np.float32)

    column = Batch(x=Tensor()).dense("x")  # type: ignore[arg-type]
    assert column.dtype == np.float32 and column.shape == (2, 3)
    with pytest.raises(ValueError, match="column 'x' wants an entry for each row"):
        Batch(x=np.float32(1))  # type: ignore[arg-type]


def test_a_tensor_becomes_an_array_that_shares_its_memory() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(3)
    column = Batch(x=tensor).dense("x")
    assert column.tolist() == [0, 1, 2] and column.ctypes.data == tensor.data_ptr()


def test_torch_is_not_imported() -> None:
    code = "import sys, hybridflow.batch; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_schema_bytes_and_lengths(batch: Batch) -> None:
    assert batch.schema == {"ids": "ragged int", "score": "float", "answer": "object"}
    assert batch.nbytes == 8 * (3 + 4) + 8 * 3
    assert batch.lengths("ids").tolist() == [2, 0, 1]
    with pytest.raises(TypeError, match="dense"):
        batch.lengths("score")


def test_equal_by_content(batch: Batch) -> None:
    assert batch == batch.select([0, 1, 2]) == batch.select_columns(["answer", "score", "ids"])
    assert Batch(x=[np.nan, 1.0]) == Batch(x=[np.nan, 1.0])
    assert Batch(x=[1]) != Batch(x=[1.0]) and Batch(x=[1]) != Batch(y=[1]) and Batch(x=[1]) != Batch(x=[2])
    assert batch != batch.select([0, 1]) and batch != batch.select_columns(["ids"]) and batch != dict(batch.items())
    assert Batch() == Batch()
    with pytest.raises(TypeError, match="unhashable"):
        hash(batch)


def test_columns_are_read_only_and_their_maker_may_still_write() -> None:
    score = np.zeros(3)
    batch = Batch(score=score, answer=["a", "b", "c"])
    for found in (batch, batch.select([2, 0]), batch.slice(1, 3), batch | Batch(x=score), concat([batch, batch])):
        for name in ("score", "answer"):
            with pytest.raises(ValueError, match="read-only"):
                found.dense(name)[0] = 1
    score[0] = 1


@pytest.mark.parametrize("out_of_band", [False, True])
def test_pickling_keeps_a_batch_read_only(batch: Batch, out_of_band: bool) -> None:
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(batch, protocol=5, buffer_callback=buffers.append if out_of_band else None)
    found = pickle.loads(text, buffers=[bytearray(buffer) for buffer in buffers])
    assert found == batch and found.columns == batch.columns and found.rows == 3
    arrays = [found.ragged("ids").values, found.ragged("ids").offsets, found.dense("score"), found.dense("answer")]
    assert not any(array.flags.writeable for array in arrays)
