"""The alarms of a run: those that its metrics give, and those that were told as it ran, by a plugin too."""

from __future__ import annotations

from typing import Any

from hybridflow.observe.run_records import RunRecords

FACTS = ("name", "first_step", "last_step", "seen", "cause", "advice", "page")


def alarms_shown(run: RunRecords) -> list[dict[str, Any]]:
    """Return the alarms of a run, each once, by the step in which it began."""
    told = [{**event, "last_step": event.get("step")} for event in run.events if event.get("event") == "alarm"]
    shown = {(alarm.get("name"), alarm["last_step"]): alarm for alarm in told}
    by_begin = sorted(shown.values(), key=lambda alarm: _whole(alarm.get("first_step")))
    return [{name: alarm.get(name) for name in FACTS} for alarm in by_begin]


def _whole(step: object) -> int:
    return step if isinstance(step, int) else -1
