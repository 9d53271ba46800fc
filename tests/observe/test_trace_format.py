"""The rules of trace events find what breaks them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.observe.trace_format import violations

TS = 1_790_000_000_000_000


def call(**changes: Any) -> dict[str, Any]:
    event = {"name": "a.b", "cat": "a", "ph": "X", "ts": TS, "dur": 10, "pid": 1, "tid": 0, "args": {"step": 0}}
    return {key: value for key, value in (event | changes).items() if value is not None}


def name(kind: str = "thread_name", label: str = "rank 0", **changes: Any) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": 1, "tid": 0, "args": {"name": label}} | changes


NAMES = [name("process_name", "pool train"), name()]


def test_what_keeps_them() -> None:
    nested = [call(), call(ts=TS + 2, dur=3), call(ts=TS + 5, dur=5), call(ts=TS + 10), call(ts=TS + 20, dur=0)]
    assert not violations(json.dumps([*NAMES, *nested]))


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([*NAMES, call(ph="Q")], "phase"),
        ([*NAMES, call(ph=None)], "phase"),
        ([*NAMES, call(dur=None)], "keys"),
        ([*NAMES, call(ts=TS / 1e6)], "integer"),
        ([*NAMES, call(ts=TS // 10**6)], "microseconds"),
        ([*NAMES, call(ts=TS * 1000)], "microseconds"),
        ([*NAMES, call(dur=-1)], "microseconds"),
        ([*NAMES, call(pid=0)], "process"),
        ([*NAMES, call(name="")], "name"),
        ([NAMES[0], call()], "before that has a name"),
        ([call(), *NAMES], "before that has a name"),
        ([*NAMES, name(label="rank 7"), call()], "2 names"),
        ([*NAMES, name(tid=1), call()], "2 are called rank 0"),
        ([*NAMES, name("process_name", "pool train", pid=2)], "2 are called pool train"),
        ([*NAMES, name("thread_nam")], "its name thread_nam"),
        ([*NAMES, call(), call(ts=TS + 5)], "overlaps"),
        ({"traceEvents": [*NAMES, call()]}, "no array"),
    ],
)
def test_what_breaks_them(events: Any, found: str) -> None:
    wrong = violations(json.dumps(events))
    assert len(wrong) == 1 and found in wrong[0]


def test_half_of_a_file() -> None:
    assert "no JSON" in violations("[\n" + json.dumps(call()))[0]
