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
    for number, (begin, end) in enumerate(spans):
        idle.note(pool, 0, number, begin, end - begin)
    return idle


def test_ranks_that_work_at_the_same_time_count_once() -> None:
    assert noted((11, 14), (12, 15), (17, 18)).within(10, 20) == {"train": 5}


def test_only_the_step_counts_and_what_ended_before_it_is_forgotten() -> None:
    idle = noted((1, 9), (8, 12), (19, 25))
    assert idle.within(10, 20) == {"train": 7}
    assert idle.within(20, 30) == {"train": 5}, "a call that reaches into the next step counts there too"
    assert idle.within(30, 40) == {"train": 10}


def test_a_call_that_is_under_way_is_counted_once_it_has_ended() -> None:
    idle = noted((11, 12), pool="rollout")
    assert idle.within(10, 20, {("rollout", 0): 1}) == {"rollout": 1}, "from 12 on nothing is known"
    idle.note("rollout", 0, 1, 15, 8)
    assert idle.within(20, 30) == {"rollout": 3 + 7}, "from 12 to 15, which is of the step before, and from 23"


def test_of_ranks_that_have_not_reported_the_one_that_is_known_least_of_counts() -> None:
    idle = noted((11, 18))
    assert idle.within(10, 20, {("train", 1): 5}) == {"train": 0}
    idle.note("train", 1, 5, 10, 1)
    assert idle.within(20, 22, {("train", 1): 6}) == {"train": 0}, "it may have worked since 11"
    idle.note("train", 1, 6, 21, 1)
    assert idle.within(22, 24) == {"train": 3 + 2}


def test_a_call_that_is_reported_after_a_later_one_is_waited_for() -> None:
    """As one of the next step, before which the rank carried out one that this step waits for."""
    idle = noted((11, 12))
    idle.note("train", 0, 2, 18, 1)
    assert idle.within(10, 20, {("train", 0): 1}) == {"train": 1}, "between 12 and 18 there was the other"
    idle.note("train", 0, 1, 13, 4)
    assert idle.within(20, 30) == {"train": 1 + 1 + 1 + 10}


@given(SPANS)
def test_what_is_covered_is_as_counted_one_by_one(spans: list[tuple[int, int]]) -> None:
    seconds = [any(begin <= second < end for begin, end in spans) for second in range(5, 25)]
    assert covered(sorted(spans), 5, 25) == pytest.approx(sum(seconds))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(0, 15)), max_size=12))
def test_steps_add_up_to_what_was_however_late_calls_are_reported(calls: list[tuple[int, int, int]]) -> None:
    """Calls of one rank, one after the other: a pause, seconds of work, and how much later each is reported.

    So some are reported before others that were made first.
    """
    spans = []
    reports = []
    now = 0
    for pause, seconds, late in calls:
        spans.append((now + pause, now + pause + seconds))
        now += pause + seconds
        reports.append(now + late)
    idle = IdleTime()
    end = max([now, *reports]) + 1
    total = 0.0
    for begin in range(0, end, 5):
        for number, ((first, last), at) in enumerate(zip(spans, reports, strict=True)):
            if begin <= at < begin + 5:
                idle.note("train", 0, number, first, last - first)
        waited_for = [number for number, at in enumerate(reports) if at >= begin + 5]
        under_way = {("train", 0): min(waited_for)} if waited_for else {}
        total += idle.within(begin, begin + 5, under_way).get("train", 0.0)
    steps = len(range(0, end, 5)) * 5
    assert total == (steps - sum(last - first for first, last in spans) if calls else 0)
