"""Seconds of a step in which a pool did nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.controller.idle_time import IdleTime, covered

TIMES = st.integers(0, 30)
SPANS = st.lists(st.tuples(TIMES, st.integers(0, 10)).map(lambda span: (span[0], span[0] + span[1])))


def noted(*spans: tuple[float, float], pool: str = "train") -> IdleTime:
    idle = IdleTime()
    for begin, end in spans:
        idle.note(pool, begin, end - begin)
    return idle


def test_ranks_that_work_at_the_same_time_count_once() -> None:
    assert noted((11, 14), (12, 15), (17, 18)).within(10, 20) == {"train": 5}


def test_only_the_step_counts_and_what_ended_before_it_is_forgotten() -> None:
    idle = noted((1, 9), (8, 12), (19, 25))
    assert idle.within(10, 20) == {"train": 7}
    assert idle.within(20, 30) == {"train": 5}, "a call that reaches into the next step counts there too"
    assert idle.within(30, 40) == {"train": 10}


def test_a_call_that_is_under_way_counts_from_the_last_that_was_done() -> None:
    assert noted((11, 12), pool="rollout").within(10, 20, ["rollout"]) == {"rollout": 1}
    assert noted((11, 14), pool="rollout").within(10, 20, ["train", "rollout"]) == {"rollout": 1, "train": 0}


@given(SPANS)
def test_what_is_covered_is_as_counted_one_by_one(spans: list[tuple[int, int]]) -> None:
    seconds = [any(begin <= second < end for begin, end in spans) for second in range(5, 25)]
    assert covered(sorted(spans), 5, 25) == pytest.approx(sum(seconds))
