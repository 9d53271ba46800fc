"""Alarms of a run that goes on: said once, and kept as events."""

from __future__ import annotations

from pathlib import Path

from hybridflow.observe.alarms import AlarmWatch
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.sinks import OpenSinks
from hybridflow.trainer.loop import Outputs, _tell_alarms
from hybridflow.trainer.step_metrics import slowest
from tests.observe.alarms.records import run_of


def test_an_alarm_is_said_and_is_an_event(tmp_path: Path) -> None:
    said: list[str] = []
    folder = RunFolder(tmp_path)
    outputs = Outputs(folder, OpenSinks(), said.append)
    for line in run_of(12, lambda _: {"rollout/truncated_fraction": 0.9}):
        _tell_alarms(outputs, line.pop("step"), line)
    (event,) = folder.events()
    assert said == [line for line in said if line.startswith("alarm truncation, steps 0–4: ")] and len(said) == 1
    assert (event["event"], event["name"], event["first_step"], event["step"]) == ("alarm", "truncation", 0, 4)
    assert event["cause"] in said[0] and event["page"] == "docs/alarms.md#truncation"


def test_a_run_that_goes_on_says_nothing_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    lines = run_of(12, lambda _: {"rollout/truncated_fraction": 0.9})
    for line in lines[:8]:
        folder.log(line)
    said: list[str] = []
    outputs = Outputs(folder, OpenSinks(), said.append, alarms=AlarmWatch.after(folder.metric_lines()))
    for line in lines[8:]:
        _tell_alarms(outputs, line.pop("step"), line)
    assert said == [] and folder.events() == []


def test_the_slowest_rank_of_a_pool_is_two_metrics() -> None:
    assert slowest({"main": (3, 0.25)}) == {"timing_s/straggling/main": 0.25, "perf/slowest_rank/main": 3.0}
