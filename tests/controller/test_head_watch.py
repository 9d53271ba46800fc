"""What is said of a cluster's head that does not answer, and when a run ends for it."""

from __future__ import annotations

import re
from time import monotonic

import pytest

from hybridflow.controller.head_watch import RAYS_SETTING, SAY_AFTER_S, SAY_EVERY_S, TAKEN_S, HeadSilence, HeadWatch

SELF = b"this cluster"


def seconds_left(line: str) -> int:
    found = re.search(r"ends unless the head comes back within (\d+) s$", line)
    assert found, line
    return int(found[1])


def test_a_silent_head_is_told_with_the_seconds_that_are_left_and_ends_the_run_after_them() -> None:
    silence = HeadSilence("10.0.0.4:6379", limit_s=50.0)
    assert silence.take_in(SELF, 0.0) == "" and silence.problem(1000.0) == ""
    lines = {now: line for now in range(1, 60) if (line := silence.take_in(None, float(now)))}
    told = [1 + SAY_AFTER_S + number * SAY_EVERY_S for number in range(4)]
    assert list(lines) == told and [seconds_left(lines[now]) for now in lines] == [51 - now for now in told]
    assert all(line.startswith("ray: the cluster's head at 10.0.0.4:6379 has not answered") for line in lines.values())
    assert silence.problem(50.9) == "" and "has not answered for 50 s, and without it" in silence.problem(51.0)


def test_a_head_that_comes_back_is_told_once_and_its_time_begins_anew() -> None:
    silence = HeadSilence("head", limit_s=50.0)
    silence.take_in(SELF, 0.0)
    for now in range(10, 40):
        silence.take_in(None, float(now))
    assert silence.take_in(SELF, 40.0) == "ray: the cluster's head at head answers again, after 30 s"
    assert silence.take_in(SELF, 41.0) == "" and silence.take_in(None, 60.0) == ""
    assert silence.problem(100.0) == "" and silence.problem(111.0)


def test_one_answer_that_is_late_is_not_worth_a_line() -> None:
    silence = HeadSilence("head", limit_s=50.0)
    silence.take_in(SELF, 0.0)
    assert [silence.take_in(answer, now) for answer, now in ((None, 1.0), (None, 2.0), (SELF, 3.0))] == [""] * 3


class AnswersMeanwhile(HeadSilence):
    """Its thread takes in an answer whenever the main thread has read since when it is silent."""

    @property
    def since(self) -> float | None:
        silent, self._silent_since = getattr(self, "_silent_since", None), None
        return silent

    @since.setter
    def since(self, since: float | None) -> None:
        self._silent_since = since


def test_an_answer_may_come_while_the_main_thread_asks_for_the_problem() -> None:
    silence = AnswersMeanwhile("head", limit_s=50.0)
    silence.since = 1.0
    assert silence.problem(2.0) == ""
    silence.since = 1.0
    assert "has not answered for 60 s" in silence.problem(61.0)


def test_a_main_thread_that_does_not_take_in_the_loss_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RAYS_SETTING, raising=False)
    monkeypatch.setattr(HeadWatch, "_watch", lambda *_: None)
    told: list[str] = []
    stuck, heard = (HeadWatch("head", told.append) for _ in range(2))
    for watch in (stuck, heard):
        watch._silence.since = monotonic() - 50.5  # of the 60 s of Ray's
        watch._end_if_stuck()
        assert told == [], "it may be about to"
        watch._silence.since -= TAKEN_S
    assert "has not answered for 5" in heard.problem()
    heard._end_if_stuck()
    assert told == []
    stuck._end_if_stuck()
    assert len(told) == 1 and "has not answered for" in told[0]


def test_a_head_that_forgot_the_run_ends_it_at_once() -> None:
    silence = HeadSilence("head", limit_s=50.0)
    silence.take_in(SELF, 0.0)
    silence.take_in(None, 1.0)
    silence.take_in(b"another cluster", 2.0)
    assert "was started anew and knows nothing of this run" in silence.problem(2.0)
