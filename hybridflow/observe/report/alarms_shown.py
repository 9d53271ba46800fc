"""The alarms of a run: those that its metrics give, and those that were told as it ran, by rules of plugins too."""

from __future__ import annotations

from typing import Any

from hybridflow.observe.alarms import alarms_of
from hybridflow.observe.run_records import RunRecords

FACTS = ("name", "first_step", "last_step", "seen", "cause", "advice", "page")


def alarms_shown(run: RunRecords) -> list[dict[str, Any]]:
    """Return the alarms of a run, each once, by the step in which it was told."""
    told = [{**event, "last_step": event.get("step")} for event in run.events if event.get("event") == "alarm"]
    # A validation after some steps comes before the step of that number.
    lines = sorted([*run.metrics.validations, *run.metrics.steps], key=lambda line: line["step"])
    found = [{**alarm.facts(), "last_step": alarm.last_step} for alarm in alarms_of(lines)]
    shown = {(str(alarm.get("name")), str(alarm["last_step"])): alarm for alarm in (*found, *told)}
    in_order = sorted(shown.values(), key=lambda alarm: _whole(alarm["last_step"]))
    return [{name: alarm.get(name) for name in FACTS} for alarm in in_order]


def _whole(step: object) -> int:
    return step if isinstance(step, int) else -1
