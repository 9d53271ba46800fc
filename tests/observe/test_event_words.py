"""Events in words: each kind says what it is, and a kind that is not known its name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.observe import event_words
from hybridflow.observe.event_words import in_words, time_of

KINDS = ["start", "validation", "checkpoint", "unsaved", "failure", "recovery", "sink", "end", "alarm", "new"]
NAMES = ["step", "seconds", "error", "accuracy", "resumed_from", "role", "status", "name", "told", "cause"]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"event": "start", "step": 0, "resumed_from": None, "seconds": 9}, "began at step 0, after a start of 9.0 s"),
        ({"event": "start", "step": 3, "resumed_from": "/runs/a/checkpoints/step-000003"}, "went on from step-000003"),
        ({"event": "validation", "step": 1, "accuracy": 0.5}, "accuracy 0.500 after 1 step"),
        ({"event": "checkpoint", "step": 30, "seconds": 0.25}, "saved step 30 in 0.2 s"),
        ({"event": "unsaved", "step": 30, "error": "no room"}, "step 30 is not saved: no room"),
        (
            {"event": "failure", "kind": "infra", "role": "rollout", "method": "generate_sequences", "rank": 1,
             "step": 4, "error": "Traceback\n  x\nOSError: gone\n"},
            "failure (infra) in rollout.generate_sequences on rank 1, step 4: OSError: gone",
        ),
        ({"event": "recovery", "step": 4, "seconds": 12.0}, "went on with step 4 after 12.0 s"),
        ({"event": "sink", "name": "wandb", "told": "failed at step 3"}, "metric sink wandb failed at step 3"),
        ({"event": "end", "status": "ended", "step": 60, "error": None}, "ended after 60 steps"),
        ({"event": "end", "status": "failed", "step": 1, "error": "too much\nx"}, "failed after 1 step: too much"),
        (
            {"event": "alarm", "name": "stale_weights", "step": 9, "cause": "It is old.", "page": "docs/alarms.md#x"},
            "stale weights, step 9: It is old. (docs/alarms.md#x)",
        ),
        ({"event": "moved"}, "moved"),
    ],
)  # fmt: skip
def test_each_event_says_what_it_is(event: dict[str, object], words: str) -> None:
    assert in_words(event)[0] == words


ANYTHING = st.none() | st.text() | st.floats() | st.integers() | st.booleans() | st.lists(st.text())


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(NAMES), ANYTHING))
def test_an_event_that_somebody_has_edited_has_words_too(kind: str, facts: dict[str, object]) -> None:
    assert isinstance(in_words({**facts, "event": kind})[0], str)


@given(ANYTHING)
def test_a_time_is_one_or_none_is_told(value: object) -> None:
    assert len(time_of({"time": value})) in (0, 8)


def test_the_time_is_that_of_the_clock_on_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert event_words.time_of({"time": "2026-11-30T15:35:36+00:00"}) == "00:35:36"
    finally:
        monkeypatch.undo()
        time.tzset()
