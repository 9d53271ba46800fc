"""The Trace Event Format, as far as `timeline.json` uses it: what Perfetto and Chrome want of an array of events.

Source: Trace Event Format, "JSON Array Format", "Complete Events" and "Metadata Events"; that slices of a thread are
nested or apart is Perfetto's rule (docs, "Writing TrackEvent Protos Synthetically"), and so is that no process is 0.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

Event = dict[str, Any]

CALL = {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args"}
NAME = {"name", "ph", "pid", "tid", "args"}
EPOCH_US = (1_500_000_000_000_000, 4_000_000_000_000_000)  # 2017 to 2096: neither seconds nor nanoseconds are between


def violations(text: str) -> list[str]:
    """Everything that is wrong with a file of trace events."""
    try:
        events = json.loads(text)
    except ValueError as error:
        return [f"no JSON: {error}"]
    if not isinstance(events, list):
        return ["no array"]
    kinds = {"X": _call, "M": _name}
    wrong = [
        f"event {number}: {problem}"
        for number, event in enumerate(events)
        for problem in (
            kinds[event["ph"]](event) if isinstance(event, dict) and event.get("ph") in kinds else ["its phase"]
        )
    ]
    return wrong or [*_named_once_and_first(events), *_nested_or_apart(events)]


def _call(event: Event) -> Iterator[str]:
    if {*event} != CALL:
        yield f"its keys are {sorted(event)}"
        return
    if not isinstance(event["name"], str) or not event["name"] or not isinstance(event["cat"], str):
        yield "its name or category is no text"
    if not all(type(event[key]) is int for key in ("ts", "dur", "pid", "tid")):
        yield "a number is no integer"
    elif not EPOCH_US[0] < event["ts"] < EPOCH_US[1] or not 0 <= event["dur"] < 10**13:
        yield "its times are no microseconds since the epoch"
    elif event["pid"] < 1 or event["tid"] < 0:
        yield "its process or thread"
    if not isinstance(event["args"], dict):
        yield "its arguments"


def _name(event: Event) -> Iterator[str]:
    if {*event} != NAME or event["name"] not in ("process_name", "thread_name"):
        yield f"its keys are {sorted(event)}, and its name {event.get('name')}"
    elif not isinstance(event["args"].get("name"), str) or not event["args"]["name"]:
        yield "it names nothing"


def _named_once_and_first(events: list[Event]) -> Iterator[str]:
    """Yield processes and threads that have no name, two of them, or another one's."""
    named: Counter[tuple[int, ...]] = Counter()
    labels: Counter[tuple[int, str]] = Counter()
    for event in events:
        thread = event["pid"], event["tid"]
        if event["ph"] == "M":
            process = event["name"] == "process_name"
            named[thread[:1] if process else thread] += 1
            labels[0 if process else event["pid"], event["args"]["name"]] += 1
        elif not named[thread[:1]] or not named[thread]:
            yield f"{event['name']} is on {thread} before that has a name"
    yield from (f"{one} has {count} names" for one, count in named.items() if count > 1)
    yield from (f"{count} are called {label}" for (_, label), count in labels.items() if count > 1)


def _nested_or_apart(events: list[Event]) -> Iterator[str]:
    threads = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            threads[event["pid"], event["tid"]].append((event["ts"], -event["dur"], event["name"]))
    for thread, spans in threads.items():
        around: list[int] = []  # ends of the spans that the next may be in
        for begin, minus, name in sorted(spans):
            while around and around[-1] <= begin:
                around.pop()
            if around and begin - minus > around[-1]:
                yield f"{name} at {begin} on {thread} overlaps another"
            around.append(begin - minus)
