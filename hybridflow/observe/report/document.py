"""What the page of a report shows, as one JSON document: read from run folders, and chosen so that it has a size."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hybridflow import __version__
from hybridflow.observe.report.alarms_shown import alarms_shown
from hybridflow.observe.report.choices import evenly, told
from hybridflow.observe.report.curves import drawn, series, varying
from hybridflow.observe.report.rollouts import rollouts
from hybridflow.observe.report.timelines import timeline
from hybridflow.observe.run_records import Record, RunRecords, status_of

MAX_NUMBERS = 90_000  # of curves, all together
MAX_BARS = 8_000  # of timelines, all together
MAX_ROW_CHARACTERS = 700_000  # of rows, all together
MAX_EVENTS = 300  # of a run
MAX_ENTRY = 2_000  # characters of a setting, an error or a fact of an event
TOLD = ("name", "started", "ended", "error", "steps", "seconds", "accuracy", "goodput", "spent", "folder",
        "host", "resumed_from", "versions", "git")  # fmt: skip
UNTOLD = ("processes", "time", "event")  # of an event: for machines, or told beside it


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
                "status": status_of(run.path, run.record),
                "record": {name: _fact(run.record[name]) for name in TOLD if name in run.record},
                "command": shlex.join(map(str, command)) if isinstance(command, list) else "",
                "attempts": 1 + (len(earlier) if isinstance(earlier, list) else 0),
                "metrics": drawn(*steps, numbers),
                "validations": drawn(*validations, numbers),
                "timeline": timeline(run.spans(), int(room * MAX_BARS)),
                "rollouts": rollouts(run, int(room * MAX_ROW_CHARACTERS)),
                "events": _events(run.events),
                "all_events": len(run.events),
                "alarms": alarms_shown(run),
                "settings": {key: value for key, value in own.items() if key not in common},
            }
        )
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"made": at, "version": __version__, "runs": made, "settings": common}


def names(folders: Sequence[Path]) -> list[str]:
    """Name folders by the shortest ends of their paths that tell them apart."""
    parts = [folder.parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        short = ["/".join(path[-length:]) for path in parts]
        if len(set(short)) == len(short):
            return short
    return short


def flattened(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings of a tree by their whole keys, as text."""
    for name, value in tree.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{key}.")
        else:
            yield key, told(value, MAX_ENTRY)


def _fact(value: object) -> object:
    """Return a value of a record as it is shown; what is in an object is there by its key, one level deep."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): entry if isinstance(entry, int | float) else told(entry, MAX_ENTRY) for name, entry in value.items()}
    return told(value, MAX_ENTRY)


def _events(events: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the events that are shown: failures and what followed them before others."""
    usual = [place for place, event in enumerate(events) if event.get("event") in ("validation", "checkpoint")]
    other = [place for place in range(len(events)) if place not in set(usual)]
    ranked = [other[place] for place in evenly(len(other))] + [usual[place] for place in evenly(len(usual))]
    shown = []
    for place in sorted(ranked[:MAX_EVENTS]):
        event = events[place]
        facts = {name: _fact(fact) for name, fact in event.items() if name not in UNTOLD}
        shown.append({"time": str(event.get("time", "")), "event": str(event.get("event", "")), **facts})
    return shown
