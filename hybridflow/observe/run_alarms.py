"""Alarms of a run by its folder: those that were told as it ran, by a plugin too, and those that its metrics give."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import itemgetter

from hybridflow.observe.alarms import alarms_of
from hybridflow.observe.json_lines import Record
from hybridflow.observe.run_records import RunRecords

ALARM = "alarm"  # the event


def alarms_of_run(run: RunRecords) -> list[Record]:
    """Return the alarms of a run, each once, as `events.jsonl` has them, by the first step that showed one.

    What was told in steps that were undone since is no alarm of the run.
    """
    found = [] if tells_alarms(run.events) else _of_metrics(run)
    done = max((line["step"] for line in run.metrics.steps), default=-1)
    alarms = {(alarm["name"], alarm["step"]): alarm for alarm in found}
    for event in run.events:
        if event.get("event") == ALARM and isinstance(event.get("step"), int) and event["step"] <= done:
            alarms[str(event.get("name")), event["step"]] = event
    return sorted(alarms.values(), key=lambda alarm: (_first(alarm), alarm["step"]))


def _first(alarm: Record) -> int:
    first = alarm.get("first_step")
    return first if isinstance(first, int) else int(alarm["step"])


def tells_alarms(events: Sequence[Record]) -> bool:
    """Tell whether a run told its alarms as it ran, which one of an earlier version did not."""
    starts = [event for event in events if event.get("event") == "start"]
    return bool(starts) and all(isinstance(event.get("alarms"), list) for event in starts)


def _of_metrics(run: RunRecords) -> list[Record]:
    """Return the alarms that a run's metrics give, step after step: of 10,000 steps that takes seconds."""
    lines = sorted(chain(run.metrics.validations, run.metrics.steps), key=itemgetter("step"))
    return [{"event": ALARM, **alarm.facts()} for alarm in alarms_of(lines)]
