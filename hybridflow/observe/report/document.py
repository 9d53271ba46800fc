"""What the page of a report shows, as one JSON document: read from run folders, and chosen so that it has a size."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hybridflow.observe.event_words import BAD, in_words
from hybridflow.observe.json_lines import Record
from hybridflow.observe.report.choices import clipped, evenly, told
from hybridflow.observe.report.curves import drawn, series, varying
from hybridflow.observe.report.evaluations import evaluation
from hybridflow.observe.report.rollouts import rollouts
from hybridflow.observe.report.timelines import timeline
from hybridflow.observe.run_alarms import alarms_of_run
from hybridflow.observe.run_folder import EARLIER
from hybridflow.observe.run_records import RunRecords, finite, seconds_spent, status_of
from hybridflow.observe.step_phases import CALLS, PARTS, PHASES

MAX_NUMBERS = 90_000  # of curves, all together
MAX_BARS = 8_000  # of timelines, all together
MAX_ROW_CHARACTERS = 700_000  # of rows, all together
MAX_EVENTS = 300  # of a run
MAX_ENTRY = 2_000  # characters of a setting, an error or a fact of an event
ALARM_FACTS = ("name", "first_step", "step", "seen", "cause", "advice", "page")
# Of `run.json`; not the machine's name and folders, which nobody who is given the page needs.
TOLD = ("name", "started", "ended", "error", "steps", "seconds", "accuracy", "goodput", "spent", "versions", "git")


def document(runs: Sequence[RunRecords], share: float = 1.0) -> dict[str, Any]:
    """Return what the page shows of runs.

    Args:
        share: of the room for curves, rows and timelines that may be taken.
    """
    metrics = [(series(run.metrics.steps), series(run.metrics.validations)) for run in runs]
    curves = sum(varying(of[1]) for pair in metrics for of in pair)
    labels = names([run.path for run in runs])
    settings = [dict(flattened(run.settings)) for run in runs]
    common = {key: value for key, value in settings[0].items() if all(own.get(key) == value for own in settings)}
    made = []
    for run, label, (steps, validations), own in zip(runs, labels, metrics, settings, strict=True):
        room = share / len(runs)
        command = run.record.get("command")
        earlier = run.record.get("earlier")
        numbers = int(share * MAX_NUMBERS / max(1, curves))
        made.append(
            {
                "label": label,
                "status": "evaluated" if run.evaluation and not run.record else status_of(run.path, run.record),
                "record": {name: _fact(value) for name, value in _facts(run).items()},
                "command": shlex.join(map(str, command)) if isinstance(command, list) else "",
                "attempts": 1 + (len(earlier) if isinstance(earlier, list) else 0),
                "metrics": drawn(*steps, numbers),
                "validations": drawn(*validations, numbers),
                "evaluation": evaluation(run),
                "timeline": timeline(run.spans(), int(room * MAX_BARS)),
                "rollouts": rollouts(run, int(room * MAX_ROW_CHARACTERS)),
                "events": _events(run.events),
                "all_events": len(run.events),
                "alarms": [{fact: _fact(alarm.get(fact)) for fact in ALARM_FACTS} for alarm in alarms_of_run(run)],
                "settings": {key: value for key, value in own.items() if key not in common},
            }
        )
    at = datetime.now(UTC).isoformat(timespec="seconds")
    phases = {"order": PHASES, "calls": CALLS, "parts": PARTS}
    return {"made": at, "runs": made, "settings": common, "phases": phases}


def names(folders: Sequence[Path]) -> list[str]:
    """Name folders by the shortest ends of their paths that tell them apart.

    A job of a sweep, and what an earlier run left, has the name of the folder that it is in before its own.
    """
    numbered = [folder.name.isdecimal() or bool(EARLIER.fullmatch(folder.name)) for folder in folders]
    length = 1
    while True:
        ends = ["/".join(folder.parts[-length - more :]) for folder, more in zip(folders, numbered, strict=True)]
        if len(set(ends)) == len(ends) or length > max(len(folder.parts) for folder in folders):
            return ends
        length += 1


def flattened(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings of a tree by their whole keys, as text."""
    for name, value in tree.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{key}.")
        else:
            yield key, told(value, MAX_ENTRY)


def _facts(run: RunRecords) -> dict[str, object]:
    """Return what is told of a run; of one that has not ended the numbers of its newest step."""
    found = {name: run.record[name] for name in TOLD if name in run.record}
    if not run.metrics.steps:
        return found
    newest = run.metrics.steps[-1]
    spent = {kind: seconds for kind, seconds in seconds_spent(newest).items() if seconds}
    so_far = {"steps": newest["step"] + 1, "seconds": sum(spent.values()) or None, "spent": spent,
              "goodput": finite(newest.get("perf/goodput"))}  # fmt: skip
    return found | {name: value for name, value in so_far.items() if value and not found.get(name)}


def _fact(value: object) -> object:
    """Return a value of a record as it is shown; what is in an object is there by its key, one level deep."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {
            str(name): entry if isinstance(entry, int | float) else told(entry, MAX_ENTRY)
            for name, entry in value.items()
        }
    return told(value, MAX_ENTRY)


def _events(events: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the events that are shown: failures and what followed them before others."""
    usual = [place for place, event in enumerate(events) if event.get("event") in ("validation", "checkpoint")]
    other = sorted({*range(len(events))} - {*usual})
    ranked = [other[place] for place in evenly(len(other))] + [usual[place] for place in evenly(len(usual))]
    return [_event(events[place]) for place in sorted(ranked[:MAX_EVENTS])]


def _event(event: Record) -> dict[str, Any]:
    text, color = in_words(event)
    step = event.get("step")
    return {
        "time": told(event.get("time", ""), MAX_ENTRY),
        "event": told(event.get("event", ""), MAX_ENTRY),
        "step": step if isinstance(step, int) else None,
        "text": clipped(text, MAX_ENTRY),
        "bad": color == BAD,
        "error": None if event.get("error") is None else told(event["error"], MAX_ENTRY),
    }
