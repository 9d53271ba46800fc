"""What the wall seconds of a run went into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import curves
from hybridflow.observe.run_folder import RunFolder
from hybridflow.trainer.goodput import Spent, WallClock, goodput, measured, since_checkpoint, spent_after, told


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def spent(clock: WallClock) -> dict[str, float]:
    return {what: seconds for what, seconds in clock.seconds.items() if seconds}


def clock_after(*passed: tuple[Spent, float]) -> tuple[WallClock, Time]:
    """A clock of a run whose start took 10 s, and that did this for so long; then nothing else has begun."""
    time = Time()
    clock = WallClock(time)
    time.now += 10
    for what, seconds in passed:
        clock.enter(what)
        time.now += seconds
    return clock, time


def test_every_second_counts_for_one_thing() -> None:
    clock, _ = clock_after((Spent.steps, 5), (Spent.other, 1), (Spent.saves, 2), (Spent.steps, 7))
    clock.enter(Spent.other)
    assert spent(clock) == {"start": 10, "steps": 12, "other": 1, "saves": 2}
    assert goodput(clock.seconds) == pytest.approx(12 / 25)
    assert measured(clock.seconds)["timing_s/run/saves"] == 2
    assert told(clock.seconds) == "48% of 25 s were kept steps; start 10 s, saves 2 s, other 1 s"


def test_a_failure_costs_the_step_its_detection_and_the_restart() -> None:
    """Seven seconds into the second step a process dies, which is told three seconds later."""
    clock, time = clock_after((Spent.steps, 5), (Spent.other, 0))
    kept = dict(clock.seconds)
    clock.enter(Spent.steps)
    time.now += 10
    clock.fail(unseen_s=3)
    time.now += 20
    clock.enter(Spent.other)
    clock.lose_steps(kept)
    assert spent(clock) == {"start": 10, "steps": 5, "lost_work": 7, "detection": 3, "restart": 20}


def test_steps_that_are_made_again_from_a_checkpoint_are_lost() -> None:
    clock, _ = clock_after((Spent.steps, 5))
    clock.enter(Spent.other)
    kept = dict(clock.seconds)
    for _ in range(3):
        clock.enter(Spent.steps)
        clock._now.now += 4  # type: ignore[attr-defined]
        clock.enter(Spent.other)
    clock.fail(unseen_s=60)
    clock.lose_steps(kept)
    assert spent(clock) == {"start": 10, "steps": 5, "lost_work": 12}, "what nobody saw is no more than what was begun"


def test_a_step_that_the_process_does_not_finish_is_lost() -> None:
    clock, _ = clock_after((Spent.steps, 5), (Spent.validations, 1), (Spent.steps, 3))
    clock.end()
    clock.end()
    assert spent(clock) == {"start": 10, "steps": 5, "validations": 1, "lost_work": 3}


@given(
    st.lists(st.tuples(st.sampled_from(["enter", "fail", "lose", "end"]), st.sampled_from(Spent), st.integers(0, 9)))
)
def test_no_second_is_counted_twice_or_lost(acts: list[tuple[str, Spent, int]]) -> None:
    clock, time = clock_after()
    marked = dict(clock.seconds)
    for act, what, seconds in acts:
        time.now += seconds
        if act == "enter":
            clock.enter(what)
        elif act == "fail":
            clock.fail(seconds / 2)
        elif act == "lose":
            clock.lose_steps(marked)
        else:
            clock.end()
            marked = dict(clock.seconds)
    clock.end()
    assert sum(clock.seconds.values()) == pytest.approx(time.now - 100) and min(clock.seconds.values()) >= 0


def event(name: str, at: int, **facts: Any) -> dict[str, Any]:
    return {"event": name, "time": f"2026-01-01T00:{at // 60:02}:{at % 60:02}+00:00", **facts}


HOUR = 1767225600.0  # 2026-01-01 of UTC
RUN = (
    event("start", 30, seconds=30.0, step=0),
    event("checkpoint", 100, step=2, seconds=1.5),
    event("checkpoint", 160, step=4, seconds=2.5),
    event("validation", 170, step=4),
)


def test_what_a_killed_process_did_after_its_checkpoint_is_lost() -> None:
    assert spent_after(RUN, 4, HOUR + 200) == {"saves": 2.5, "lost_work": 40}, "it wrote a line of metrics 40 s later"
    assert spent_after(RUN, 2, 0.0) == {"saves": 1.5, "lost_work": 70}
    assert spent_after(RUN, 6, HOUR + 200) == {}, "a checkpoint of which nobody knows"


def test_a_process_that_saved_nothing_is_lost_with_its_start_and_the_time_between_is_nobodys() -> None:
    again = (event("start", 1000, seconds=20.0, step=4), event("end", 1050, status="failed", step=5))
    assert spent_after([*RUN, *again], 4, HOUR + 1050) == {"saves": 2.5, "lost_work": 10 + 20 + 50}


EDITED = '{"event": "checkpoint", "step": 4, "time": "2026-11-30T00:00:00+00:00", "seconds": %s}'


@pytest.mark.parametrize(
    "line",
    [
        *("{}", '{"event": "checkpoint"}', '{"event": "start", "time": 3}', "[", "\x00"),
        *(EDITED % seconds for seconds in ("1e400", "-1", "NaN", '"long"', "[]")),
    ],
)
def test_events_that_somebody_edited_are_no_reason_to_fail(line: str, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text(line + "\n")
    assert since_checkpoint(RunFolder(tmp_path), tmp_path / "checkpoints/step-000004") == {}


def test_no_comparison_of_curves_takes_these_for_numbers_of_the_training() -> None:
    clock, _ = clock_after((Spent.steps, 5), (Spent.other, 1))
    assert [name for name in [*measured(clock.seconds), "timing_s/idle/main"] if not curves.is_measured(name)] == []
