"""The controller opens no rows; and if it did, it would be noticed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.driver_bytes import counted, tensor_bytes
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.controller import Group, put
from hybridflow.parallel.layout import Layout
from tests.controller.stage import Stage

pytestmark = pytest.mark.ranks


def rows_of(count: int) -> Batch:
    """`n` and ragged `words`."""
    return Batch(n=np.arange(count), words=Ragged.of([[n] * (n % 3) for n in range(count)], np.int64))


@pytest.fixture
def scribe(stage: Stage) -> Group:
    return stage.start_role("scribe")


def test_the_driver_opens_no_row(stage: Stage, scribe: Group) -> None:
    halves = stage.start_role("scribe", Layout(tensor=2, data=2))
    with counted() as found:
        rows = put(rows_of(10)).repeat(2)
        rows |= scribe.double(rows)
        rows |= halves.sum_words(rows)
        for part in rows.select(np.random.default_rng(0).permutation(20)).split(3):
            scribe.measure(part)
        scribe.columns(scribe.undeclared(rows)).get()
        rows |= scribe.lengthen(rows)
        stage.supervisor.wait_all()
    assert found.tensors == 0
    assert found.reports == 8 * 4
    assert found.lengths == 20 * 8  # those of `longer`


def test_rows_inside_a_value_are_noticed(scribe: Group) -> None:
    """The role returns what it was given, on each of 4 ranks."""
    rows = rows_of(5)
    with counted() as found:
        scribe.leak(put(rows)).get()
    assert found.tensors == 4 * rows.nbytes


def test_rows_that_are_fetched_are_noticed(scribe: Group) -> None:
    made: BatchRef = scribe.double(put(rows_of(5)))
    with counted() as found:
        size = made.get().nbytes
    assert found.tensors == size == 2 * 5 * 8


def test_tensors_are_found_however_deep() -> None:
    torch = pytest.importorskip("torch")
    assert tensor_bytes({"a": [torch.zeros(3, dtype=torch.float32)], "b": (np.zeros(2), "text", 7)}) == 12 + 16
    assert tensor_bytes(np.array([np.zeros(2), None], dtype=object)) == 16
