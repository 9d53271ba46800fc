"""Timelines: whole steps, each with the calls that ran in it."""

from __future__ import annotations

from hybridflow.observe.report.timelines import MAX_STEPS, timeline
from hybridflow.observe.timeline import CONTROLLER, CallSpan


def step_of(number: int, began: float) -> CallSpan:
    return CallSpan(CONTROLLER, 0, "", f"step {number}", number, began, 2.0)


def call(began: float, seconds: float, *, rank: int = 0, pool: str = "main", method: str = "update_actor") -> CallSpan:
    return CallSpan(pool, rank, "actor", method, None, began, seconds)


def test_bars_are_by_lane_and_count_from_the_begin_of_their_step() -> None:
    spans = [
        step_of(0, 100.0),
        call(100.5, 0.25),
        call(101.0, 0.5, rank=1),
        call(100.0, 1.0, pool="a"),
        step_of(10, 200.0),
    ]
    shown = timeline([*spans, call(200.5, 1.0)], 100)
    assert shown is not None
    assert shown["lanes"] == [("a", 0), ("main", 0), ("main", 1)] and shown["names"] == ["actor.update_actor"]
    assert [(step["step"], step["seconds"]) for step in shown["steps"]] == [(0, 2.0), (10, 2.0)]
    assert shown["steps"][0]["bars"] == [(0, 0, 0, 1_000_000), (1, 0, 500_000, 250_000), (2, 0, 1_000_000, 500_000)]
    assert shown["steps"][1]["bars"] == [(1, 0, 500_000, 1_000_000)]


def test_a_call_under_way_at_the_begin_of_a_step_is_in_both() -> None:
    shown = timeline([step_of(0, 100.0), call(101.0, 5.0), step_of(1, 103.0)], 100)
    assert shown is not None and [step["bars"] for step in shown["steps"]] == [
        [(0, 0, 1_000_000, 5_000_000)],
        [(0, 0, -2_000_000, 5_000_000)],
    ]


def test_what_ran_before_the_first_step_is_by_itself() -> None:
    shown = timeline([call(90.0, 1.0), call(95.0, 1.0), step_of(0, 100.0), call(100.0, 1.0)], 100)
    assert shown is not None and [step["step"] for step in shown["steps"]] == [None, 0]
    assert shown["steps"][0]["bars"] == [(0, 0, 0, 1_000_000), (0, 0, 5_000_000, 1_000_000)]


def test_steps_are_left_out_and_of_one_that_is_too_large_the_short_bars() -> None:
    spans = [each for step in range(100) for each in (step_of(step, step * 10.0), call(step * 10.0 + 1, 1.0))]
    shown = timeline(spans, 1000)
    assert shown is not None and (len(shown["steps"]), shown["kept"]) == (MAX_STEPS, 100)
    few = timeline(spans, 3)
    assert few is not None and [step["step"] for step in few["steps"]][::2] == [0, 99]
    large = timeline([step_of(0, 0.0), *(call(1.0, 0.1 * length) for length in range(1, 10))], 2)
    assert large is not None and large["steps"][0]["all"] == 9
    assert sorted(bar[3] for bar in large["steps"][0]["bars"]) == [800_000, 900_000]


def test_without_steps_or_calls_there_is_none() -> None:
    assert timeline([], 9) is None and timeline([step_of(0, 1.0)], 9) is None
