"""Deadline of code that runs in this thread; it does not end the process."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from hybridflow.bounded_code import at_most, kept_alive


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
