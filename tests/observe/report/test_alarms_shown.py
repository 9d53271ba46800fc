"""Alarms of a report: of the metrics and of what was told as the run went, each once."""

from __future__ import annotations

import json
from pathlib import Path

from hybridflow.observe.alarms import alarms_of
from hybridflow.observe.report.alarms_shown import FACTS, alarms_shown
from hybridflow.observe.run_records import read_records
from tests.observe.report.synthetic_run import build_run, built

TOLD = {"event": "alarm", "name": "shouting", "step": 3, "first_step": 1, "seen": "a", "cause": "b", "advice": "c"}


def test_a_healthy_run_has_none(tmp_path: Path) -> None:
    assert alarms_shown(built(tmp_path / "mine", metrics=["perf/goodput"])) == []


def test_those_of_metrics_and_those_told_are_one_list(tmp_path: Path) -> None:
    """Of a rule of ours that was told as the run went it is one alarm; of a plugin's rule only the event is known."""
    folder = build_run(tmp_path / "mine", steps=0)
    lines = [{"step": step, "reward/mean": None, "actor/grad_norm": None} for step in range(8)]
    (folder / "metrics.jsonl").write_text("\n".join(map(_line, lines)))
    (first, *_) = alarms_of(lines)
    for events in ([TOLD], [TOLD, {"event": "alarm", **first.facts()}]):
        (folder / "events.jsonl").write_text("\n".join(map(_line, events)))
        shown = alarms_shown(read_records(folder))
        names = [alarm["name"] for alarm in shown]
        assert names.count(first.name) == 1 and names.count("shouting") == 1
        assert [alarm["last_step"] for alarm in shown] == sorted(alarm["last_step"] for alarm in shown)
        assert all(tuple(alarm) == FACTS for alarm in shown)


def _line(line: object) -> str:
    return json.dumps(line)
