"""A call that streams: rows reach the controller, and other roles, while others of the same call are under way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hybridflow.batch import Batch
from hybridflow.controller import put
from hybridflow.dispatch import concat
from hybridflow.errors import HybridFlowError
from hybridflow.parallel.layout import Layout
from hybridflow.runtime.failure import RoleError
from tests.controller.stage import Stage

pytestmark = pytest.mark.ranks


def rows_of(count: int) -> Batch:
    return Batch(n=np.arange(count))


def test_a_long_row_does_not_hold_back_the_others(new_stage: Callable[..., Stage], tmp_path: Path) -> None:
    """Row 0 is not finished before another role has done its work on all others: that is what it waits for."""
    first, second = new_stage(2), new_stage(1)
    rows, seen, done = put(rows_of(5)), list[int](), tmp_path / "done"
    scribe, other = first.start_role("scribe"), second.start_role("scribe")
    parts = []
    for numbers, part in scribe.double_one_by_one(rows, wait_for=str(done)):
        parts.append(part | other.double(rows.select(numbers)).select_columns(["by"]))
        seen += numbers.tolist()
        if len(seen) == 4:
            assert 0 not in seen and len(concat(parts).get()["by"]) == 4
            done.touch()
    assert sorted(seen) == list(range(5)) and seen[-1] == 0
    assert concat(parts).get().dense("double").tolist() == [0, 2, 4, 6, 8], "in the order of the call"


@pytest.mark.parametrize("count", [0, 1, 3, 9])
@pytest.mark.parametrize("layout", [Layout(data=4), Layout(2, 1, 2), Layout(1, 2, 2)], ids=["d4", "t2d2", "p2d2"])
def test_every_row_comes_once_from_whom_the_protocol_collects(count: int, layout: Layout, stage: Stage) -> None:
    scribe = stage.start_role_once("scribe", layout)
    stage.supervisor.collect_metrics()
    found = list(scribe.double_one_by_one(put(rows_of(count)).select(np.arange(count)[::-1])))
    assert sorted(row for numbers, _ in found for row in numbers) == list(range(count))
    for numbers, part in found:
        assert part.get().dense("double").tolist() == [2 * (count - 1 - row) for row in numbers]
    assert stage.supervisor.collect_metrics().get("rows/total", 0) == count


def test_the_rows_of_two_calls_come_as_those_of_one(stage: Stage) -> None:
    scribe, rows = stage.start_role_once("scribe"), put(rows_of(7))
    first, second = (scribe.double_one_by_one(rows.slice(*part)) for part in ((0, 3), (3, 7)))
    parts = [part for numbers, part in first.beside(second, 3) if len(numbers)]
    assert concat(parts).get().dense("double").tolist() == [2 * row for row in range(7)]


@pytest.mark.parametrize("method", ["meet", "meet_one_by_one"])
def test_what_ranks_wait_for_the_last_one_is_not_their_time(method: str, stage: Stage) -> None:
    """However the rows come: the 0.3 s before a meeting are the time of the rank alone that others waited for."""
    scribe = stage.start_role_once("scribe")
    stage.supervisor.slowest_ranks()
    found = getattr(scribe, method)(put(rows_of(6)))
    if method == "meet_one_by_one":
        assert len([*found]) == 6
    stage.supervisor.wait_all()
    ((rank, longer),) = stage.supervisor.slowest_ranks().values()
    assert rank == 3 and longer > 0.15


def test_who_stops_to_read_stops_nothing(stage: Stage) -> None:
    scribe = stage.start_role_once("scribe")
    stage.supervisor.collect_metrics()
    stream = scribe.double_one_by_one(put(rows_of(9)))
    next(stream)
    del stream
    assert stage.supervisor.collect_metrics()["rows/total"] == 9


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raises", "ZeroDivisionError: the last row is broken"),
        ("forgets", "ValueError: the method was given 3 rows and gave 2"),
        ("repeats", "ValueError: the method gave row 0 twice"),
        ("dies", "failed on rank 0"),
    ],
)
def test_a_failure_amid_a_stream_is_raised(how: str, said: str, new_stage: Callable[..., Stage]) -> None:
    vandal = new_stage(2).start_role("vandal")
    got = []
    with pytest.raises(RoleError, match=said):
        for numbers, _ in vandal.stream_wrongly(put(rows_of(6)), how=how):
            got.append(numbers)
    assert got or how == "dies", "rows that were good came before"


def test_a_failure_of_another_call_ends_the_wait(new_stage: Callable[..., Stage], tmp_path: Path) -> None:
    first = new_stage(1)
    second = new_stage(1, first.supervisor)
    stream = first.start_role("scribe").double_one_by_one(put(rows_of(1)), wait_for=str(tmp_path / "never"))
    second.start_role("vandal").fail_in_turn(put(rows_of(1)), first=0)
    with pytest.raises(RoleError, match="row 0 is broken"):
        next(stream)


def test_a_call_without_rows_is_refused(stage: Stage) -> None:
    with pytest.raises(
        HybridFlowError, match=r"scribe\.double_one_by_one gives rows as they finish; it must be called"
    ):
        stage.start_role_once("scribe").double_one_by_one(3)
