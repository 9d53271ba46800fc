"""What a call gives back: at once, whatever it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.controller import Group, put
from hybridflow.parallel.layout import Layout
from tests.controller.stage import Stage

pytestmark = pytest.mark.ranks


def numbers(count: int) -> BatchRef:
    return put(Batch(n=np.arange(count)))


@pytest.fixture
def scribe(stage: Stage) -> Group:
    return stage.start_role("scribe")


def seconds(call: Callable[[], Any]) -> float:
    start = time.time()
    call()
    return time.time() - start


def test_rows_that_are_not_declared_come_at_once_too(scribe: Group) -> None:
    slow, found = scribe.slow(numbers(4), seconds=0.5), None

    def call() -> None:
        nonlocal found
        found = scribe.odd(slow | numbers(4))

    assert seconds(call) < 0.3
    assert found is not None and found.rows == 2  # known when the ranks are done
    assert found.get().dense("odd").tolist() == [1, 3]


def test_metadata_is_known_without_rows(scribe: Group) -> None:
    found = scribe.lengthen(put(Batch(n=np.arange(3), words=Ragged.of([[1], [], [2, 3]], np.int64)))).metadata()
    assert found.rows == 3 and found.kinds == {"longer": "ragged int"} and found.lengths["longer"].tolist() == [2, 1, 3]
    reports = scribe.measure(numbers(6)).metadata()
    assert [dict(report.metrics)["n/total"] for report in reports] == [0, 3, 3, 9]
    assert all(report.seconds >= 0 and report.value is None for report in reports)


def test_metrics_are_those_of_their_call(scribe: Group) -> None:
    for count, totals in ((8, [1, 5, 9, 13]), (4, [0, 1, 2, 3])):
        assert [dict(report.metrics)["n/total"] for report in scribe.measure(numbers(count)).metadata()] == totals
    assert [report.metrics for report in scribe.nap(seconds=0).metadata()] == [None] * 4


def test_rows_that_are_here_may_be_given_as_they_are(scribe: Group) -> None:
    assert scribe.double(Batch(n=np.arange(5))).get().dense("double").tolist() == [0, 2, 4, 6, 8]


def test_rows_may_be_given_by_keyword(scribe: Group) -> None:
    assert scribe.double(rows=numbers(5)).get().dense("double").tolist() == [0, 2, 4, 6, 8]


def test_an_async_method_works_on_its_rows_together(scribe: Group) -> None:
    scribe.double_async(numbers(4)).get()  # the loop is made
    found: list[BatchRef] = []
    assert seconds(lambda: found.append(scribe.double_async(numbers(20)).get())) < 1.0  # 5 rows a rank, 0.3 s each
    assert found[0].dense("double").tolist() == [2 * n for n in range(20)]


def test_a_blocking_method_waits(scribe: Group) -> None:
    assert seconds(lambda: scribe.nap(seconds=0.4)) >= 0.4


def test_rank_zero_answers_alone(scribe: Group) -> None:
    result = scribe.who("a", "b")
    assert result.get() == "0: a b"
    assert len(result.metadata()) == 1


def test_metrics_come_back_reduced(stage: Stage) -> None:
    found = stage.start_role("scribe", Layout(tensor=2, data=2)).reduce(numbers(11)).get()
    assert dict(found) == {"n/mean": 5.0, "n/total": 55.0, "n/max": 10.0}


def test_rows_balanced_by_tokens_come_back_in_order(stage: Stage) -> None:
    """Lengths become known when the responses have been made; the call waits for them."""
    scribe = stage.start_role("scribe", Layout(data=4))
    rows = put(Batch(n=np.array([9, 1, 1, 1, 9, 2, 8, 8, 1])))
    rows |= scribe.respond(rows)
    rows |= scribe.weigh(rows)
    found = rows.get()
    assert found.lengths("response_ids").tolist() == found.dense("n").tolist()
    assert set(found.dense("tokens").tolist()) == {10}
    assert len(set(found.dense("by").tolist())) == 4


@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
def test_rows_in_several_chunks(stage: Stage, chunk_rows: int) -> None:
    scribe = stage.start_role("scribe", Layout(tensor=2, data=2), chunk_rows=chunk_rows)
    rows = put(Batch(n=np.arange(7), words=Ragged.of([[n] * n for n in range(7)], np.int64)), chunk_rows)
    rows |= scribe.sum_words(rows)
    chunks = [chunk for source in rows.sources for chunk in source.chunks]
    assert [chunk.metadata().rows for chunk in chunks] == {
        1: [1] * 7 + [1] * 7,
        2: [2, 2, 2, 1, 2, 1, 2, 2],
        100: [7, 3, 4],
    }[chunk_rows]
    assert rows.select([6, 2]).get().dense("sums").tolist() == [36, 4]
    assert scribe.sum_words(rows.select([5, 5, 1])).get().dense("sums").tolist() == [25, 25, 1]


def test_a_group_shows_the_methods_of_its_role(scribe: Group) -> None:
    import inspect

    assert inspect.getdoc(scribe.odd) == "Fewer rows than it was given, and columns that are learned from the ranks."
    assert str(inspect.signature(type(scribe).odd)) == "(self, rows: 'BatchRef') -> 'BatchRef'"
    assert str(inspect.signature(type(scribe).nap)) == "(self, *, seconds: 'float') -> 'Result'"
    assert "Small true work" in (inspect.getdoc(type(scribe)) or "")
