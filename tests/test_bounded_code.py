"""Deadline of code that runs in this thread; it does not end the process."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from hybridflow import bounded_code
from hybridflow.bounded_code import at_most, kept_alive, told_where


def spin() -> None:
    while True:
        pass


def test_what_takes_longer_is_ended_and_what_does_not_is_left_alone() -> None:
    with pytest.raises(TimeoutError, match=r"longer than 0.01 s"), at_most(0.01):
        spin()
    before = signal.getsignal(signal.SIGALRM)
    with at_most(5):
        pass
    assert signal.getsignal(signal.SIGALRM) is before


def test_the_alarm_of_another_is_set_again() -> None:
    def other(*_: Any) -> None:
        raise AssertionError("it is 100 s away")

    before = signal.signal(signal.SIGALRM, other)
    left, _ = signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        with at_most(5):
            assert signal.getitimer(signal.ITIMER_REAL)[0] <= 5
        assert signal.getsignal(signal.SIGALRM) is other and signal.getitimer(signal.ITIMER_REAL)[0] > 50
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)


def test_whoever_catches_it_goes_on_and_is_told_of_at_the_end() -> None:
    """As code that imports something optional, and would do without it in silence."""
    went_on = False
    with pytest.raises(TimeoutError, match=r"longer than 0.01 s"), at_most(0.01):
        try:
            spin()
        except Exception:
            went_on = True
    assert went_on


def test_another_thread_has_no_deadline() -> None:
    done = []

    def run() -> None:
        with at_most(0.001):
            time.sleep(0.01)
            done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [True]


def test_code_that_would_end_the_process_is_told_of() -> None:
    own = os._exit
    with pytest.raises(SystemExit, match=r"os\._exit\(0\) would have ended the process"), kept_alive():
        os._exit(0)
    assert os._exit is own


def test_code_that_has_imported_it_by_its_name_can_end_the_process_later(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with kept_alive():
        taken = os._exit
    with pytest.raises(SystemExit):
        taken(7)
    assert ended == [7]


def test_code_of_a_user_that_takes_long_is_told_with_its_line() -> None:
    said: list[str] = []
    with told_where(said.append, after_s=0.01):
        until = time.monotonic() + 5
        while not said and time.monotonic() < until:
            pass
    (line,) = said
    assert line.startswith(f"for 0.01 s now: {__file__}:") and line.endswith(" (before the start; Ctrl-C ends it)")
    with told_where(said.append, after_s=60):
        pass
    assert len(said) == 1


def test_of_code_of_ours_and_of_libraries_nothing_is_told() -> None:
    def frame(file: str, back: Any = None) -> Any:
        return SimpleNamespace(f_code=SimpleNamespace(co_filename=file, co_name="f"), f_lineno=7, f_back=back)

    users = frame("/home/me/mine.py")
    ours = frame(bounded_code.__file__, users)
    assert bounded_code._line_of_users(frame(threading.__file__, frame("<frozen>", users))) == "/home/me/mine.py:7, f"
    assert bounded_code._line_of_users(frame(threading.__file__, ours)) == ""
    assert bounded_code._line_of_users(frame(threading.__file__)) == bounded_code._line_of_users(None) == ""
