"""Alarms of a run by its folder: those that were told as it ran, by a plugin too, and those that its metrics give."""

from __future__ import annotations

from itertools import chain
from operator import itemgetter

from hybridflow.observe.alarms import alarms_of
from hybridflow.observe.json_lines import Record
from hybridflow.observe.run_records import RunRecords

ALARM = "alarm"  # the event


def alarms_of_run(run: RunRecords) -> list[Record]:
    """Return the alarms of a run, each once, as `events.jsonl` has them, by the first step that showed one.

    An earlier version told none as it ran; and what was told in steps that were undone since is no alarm of the run.
    """
    lines = sorted(chain(run.metrics.validations, run.metrics.steps), key=itemgetter("step"))
    found = [{"event": ALARM, **alarm.facts()} for alarm in alarms_of(lines)]
    done = max((line["step"] for line in run.metrics.steps), default=-1)
    alarms = {(alarm["name"], alarm["step"]): alarm for alarm in found}
    for event in run.events:
        if event.get("event") == ALARM and isinstance(event.get("step"), int) and event["step"] <= done:
            alarms[str(event.get("name")), event["step"]] = event
    return sorted(alarms.values(), key=lambda alarm: (_first(alarm), alarm["step"]))


def _first(alarm: Record) -> int:
    first = alarm.get("first_step")
    return first if isinstance(first, int) else int(alarm["step"])
