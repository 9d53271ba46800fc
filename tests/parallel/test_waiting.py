"""Time that is not a rank's own."""

from __future__ import annotations

import time

import pytest

from hybridflow.parallel.waiting import Waiting


def test_meetings_add_up_until_somebody_asks() -> None:
    waiting = Waiting()
    for _ in range(2):
        with waiting.meeting():
            time.sleep(0.01)
    time.sleep(0.05)
    assert 0.02 <= waiting.take() < 0.06
    assert waiting.take() == 0.0


def test_a_meeting_that_fails_counts_too() -> None:
    waiting = Waiting()
    with pytest.raises(ZeroDivisionError), waiting.meeting():
        raise ZeroDivisionError
    assert waiting.take() > 0.0
