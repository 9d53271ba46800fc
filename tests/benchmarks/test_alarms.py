"""Recorded runs: what was planted is named, runs that are well raise nothing; files keep what was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import alarm_data
from benchmarks.alarm_data import DATA, compact, read, recorded
from benchmarks.alarm_runs import HEALTHY, PLANTED, RUNS
from benchmarks.alarms import told
from hybridflow.cli.algorithms import rows
from hybridflow.conformance.shared_roles import EVERYONE
from hybridflow.observe.alarms import alarm_rules

CAUSES = {run.name: run.alarm for run in PLANTED}
RECORDED = {kind: recorded(kind) for kind in ("planted", "healthy", "setting")}


@pytest.mark.parametrize("name", RECORDED["planted"])
def test_an_alarm_names_what_was_planted(name: str) -> None:
    assert CAUSES[name] in [alarm["alarm"] for alarm in told(RECORDED["planted"][name])]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ("healthy", "setting") for name in RECORDED[kind]])
def test_a_run_that_is_well_raises_nothing(kind: str, name: str) -> None:
    assert told(RECORDED[kind][name]) == []


def test_every_recording_is_of_a_run_that_is_known() -> None:
    assert {f"{file.parent.name}/{file.stem}" for file in DATA.glob("*/*.json")} <= RUNS.keys()


def test_every_cause_is_planted_but_those_that_need_other_runs() -> None:
    assert set(CAUSES.values()) == set(alarm_rules) - {"slow_environment"}


def test_every_algorithm_is_among_those_that_are_well() -> None:
    algorithms = {name for name, *_ in rows()} - {EVERYONE}  # which checks of plugins register
    assert {run.name.rpartition("_")[0] for run in HEALTHY} == algorithms
    assert len(HEALTHY) == len(algorithms) + 6 >= 20, "ppo and grpo on three seeds; grpo with old rows, and with few"


def test_a_recording_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, Any]] = [
        {"step": 0, "reward/mean": 0.123456, "timing_s/run/steps": 1.0, "rollout/rows": 128.0},
        {"step": 0, "validation/accuracy": 0.5},
        {"step": 1, "reward/mean": None, "critic/lr": 1e-4},
    ]
    monkeypatch.setattr(alarm_data, "DATA", tmp_path)
    file = alarm_data.write("healthy", "mine", "hybridflow train", lines)
    assert read(file) == [
        {"step": 0, "reward/mean": 0.12346, "rollout/rows": 128},
        {"step": 1, "reward/mean": None, "critic/lr": 1e-4},
    ]
    assert json.loads(file.read_text())["command"] == "hybridflow train"


def test_of_a_step_that_was_made_again_the_last_one_counts() -> None:
    lines = [{"step": 0, "x": 1.0}, {"step": 1, "x": 2.0}, {"step": 1, "x": 3.0}]
    assert compact(lines) == {"step": [0, 1], "x": [1, 3]}
    assert math.isclose(compact([{"step": 0, "x": 2.34567e-7}])["x"][0], 2.3457e-7)
