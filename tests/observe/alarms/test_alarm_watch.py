"""A cause is told once, what follows from it is not, and nothing that a run measures breaks its alarms."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.observe.alarms import Alarm, AlarmWatch, Finding, MetricWindow, alarm_rules, alarms_of
from hybridflow.observe.alarms.alarm import PAGE
from hybridflow.observe.alarms.alarm_watch import EXPLAINS, EXPLAINS_ALL, REST
from tests.observe.alarms.records import names_of, run_of, well

DOC = (Path(__file__).parents[3] / PAGE).read_text(encoding="utf-8")
NAMES = sorted(well(0).keys() - {"step"})
ODD = st.sampled_from([None, math.nan, math.inf, -math.inf, "long", True, [], 10**400, -1.0, 0.0, 1e308, 5e-324])
VALUES = st.one_of(ODD, st.floats(), st.integers())


def high(window: MetricWindow) -> Finding | None:
    """See that `x` is more than 1."""
    value = window.median("x", 1)
    return Finding(1, f"x {value:g}", "It is high.", "Lower it.") if value is not None and value > 1 else None


def watched(values: list[float]) -> list[int]:
    """Steps at which the rule `high` is told."""
    watch = AlarmWatch({"high": high})
    return [alarm.last_step for step, x in enumerate(values) for alarm in watch.look({"step": step, "x": x})]


def test_a_run_that_is_well_has_no_alarm() -> None:
    assert names_of(run_of(200)) == []


def test_an_alarm_says_what_where_why_and_what_to_do() -> None:
    (alarm,) = alarms_of(run_of(20, lambda _: {"rollout/truncated_fraction": 0.9}, since=10))
    assert str(alarm).startswith("alarm truncation, steps 8–12: rollout/truncated_fraction 90%. Answers are cut off")
    assert str(alarm).endswith(f"({PAGE}#truncation)") and "\n" not in str(alarm)
    assert alarm.facts() == {
        "name": "truncation", "step": 12, "first_step": 8, "seen": alarm.seen, "cause": alarm.cause,
        "advice": alarm.advice, "page": f"{PAGE}#truncation",
    }  # fmt: skip


def test_a_cause_is_told_once_and_again_after_a_rest() -> None:
    assert watched([0, 2, 2, 2]) == [1]
    assert watched([2, *[0] * REST, 2]) == [0, REST + 1]
    assert watched([2, *[0] * (REST - 1), 2]) == [0]


def test_what_follows_from_another_is_told_only_when_that_is_over() -> None:
    def seen_in(first: int, last: int) -> Any:
        return lambda window: Finding(1, "x", "y", "z") if first <= window.steps[-1] <= last else None

    watch = AlarmWatch({"dead_reward": seen_in(3, 10), "all_groups_alike": seen_in(3, 40)})
    told = [(alarm.name, step) for step in range(40) for alarm in watch.look({"step": step})]
    assert told == [("dead_reward", 3), ("all_groups_alike", 10 + REST + 1)]


def test_one_number_that_is_never_finite_hides_nothing_for_long() -> None:
    lines = run_of(60, lambda step: {"mine/ratio": None} | ({"rollout/truncated_fraction": 0.9} if step > 9 else {}))
    told = [(alarm.name, alarm.last_step) for alarm in alarms_of(lines)]
    assert told == [("non_finite", 0), ("truncation", REST + 1)]


def test_what_explains_and_what_is_explained_are_rules() -> None:
    ours = {name for name in alarm_rules}
    assert {EXPLAINS_ALL, *EXPLAINS, *(name for names in EXPLAINS.values() for name in names)} <= ours


def test_every_alarm_of_ours_has_its_section() -> None:
    headings = {re.sub(r"[^a-z-]", "", line.lower().replace(" ", "-")) for line in re.findall(r"^## (.+)$", DOC, re.M)}
    for name in alarm_rules:
        assert name.replace("_", "-") in headings and f"| [`{name}`](#{name.replace('_', '-')}) |" in DOC


def test_a_rule_that_raises_is_left_out_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(window: MetricWindow) -> None:
        raise ZeroDivisionError

    watch = AlarmWatch({"broken": broken, "high": high})
    with caplog.at_level(logging.WARNING):
        told = [alarm.name for step in range(3) for alarm in watch.look({"step": step, "x": 2.0})]
    assert told == ["high"] and len(caplog.records) == 1 and "'broken' failed" in caplog.text


def test_a_resumed_run_knows_what_was_told() -> None:
    lines = run_of(30, lambda _: {"rollout/truncated_fraction": 0.9}, since=10)
    assert [alarm.name for line in lines[:20] for alarm in AlarmWatch.after([]).look(line)] == []
    watch = AlarmWatch.after(lines[:20])
    assert [alarm for line in lines[20:] for alarm in watch.look(line)] == []
    assert [alarm.last_step for alarm in alarms_of([*lines[:8], *lines[4:]])] == [12], "it went back in between"


def test_what_json_makes_of_lines_raises_the_same() -> None:
    lines = run_of(12, lambda _: {"actor/pg_loss": math.nan}, since=5)
    written = [{name: None if value != value else value for name, value in line.items()} for line in lines]
    assert alarms_of(lines) == alarms_of(map(json.loads, map(json.dumps, written)))
    assert names_of(lines) == ["non_finite"]


def test_validations_are_no_steps() -> None:
    lines = run_of(20, lambda _: {"rollout/truncated_fraction": 0.9}, since=10)
    between = [{"step": line["step"], "validation/accuracy": 0.5, "reward/mean": None} for line in lines]
    both = [line for pair in zip(between, lines, strict=True) for line in pair]
    assert alarms_of(both) == alarms_of(lines)


@given(st.lists(st.dictionaries(st.sampled_from(["step", *NAMES]), VALUES), max_size=30))
def test_no_lines_break_it(lines: list[Mapping[str, Any]]) -> None:
    assert all(isinstance(alarm, Alarm) for alarm in alarms_of(lines))


@given(st.integers(1, 40), st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6))
def test_constants_and_numbers_that_are_none_break_no_rule(steps: int, change: dict[str, Any]) -> None:
    """Rules are asked themselves: the watch would only leave out one that raises."""
    window = MetricWindow()
    for line in run_of(steps, lambda _: change):
        window.take(line)
        for name in alarm_rules:
            alarm_rules.get(name)(window)


@given(st.sets(st.sampled_from(NAMES)))
def test_a_metric_that_is_not_there_raises_no_alarm(missing: set[str]) -> None:
    assert names_of(run_of(40, lambda _: dict.fromkeys(missing, ...))) == []
