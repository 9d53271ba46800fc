"""Events of a run in words, a line each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any

from hybridflow.errors import counted
from hybridflow.observe.run_records import finite

GOOD, NEUTRAL, BAD = "green", "", "red"


def in_words(event: Mapping[str, Any]) -> tuple[str, str]:
    """Return what an event of `events.jsonl` says, and its colour; text in it is as it was found."""
    kind = str(event.get("event"))
    words = _WORDS.get(kind)
    return words(event) if words else (kind, NEUTRAL)


def time_of(event: Mapping[str, Any]) -> str:
    """Return when an event was, by the clock on the wall here; "": it does not say."""
    try:
        return f"{datetime.fromisoformat(str(event.get('time'))).astimezone():%H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return ""


def _start(event: Mapping[str, Any]) -> tuple[str, str]:
    source = event.get("resumed_from")
    what = f"went on from {PurePath(str(source)).name}" if source else f"began at step {event.get('step')}"
    return f"{what}{_took(event, ', after a start of ')}", NEUTRAL


def _validation(event: Mapping[str, Any]) -> tuple[str, str]:
    accuracy = finite(event.get("accuracy"))
    told = "no accuracy" if accuracy is None else f"accuracy {accuracy:.3f}"
    return f"{told} after {_steps(event)}", NEUTRAL


def _checkpoint(event: Mapping[str, Any]) -> tuple[str, str]:
    return f"saved step {event.get('step')}{_took(event)}", GOOD


def _unsaved(event: Mapping[str, Any]) -> tuple[str, str]:
    return f"step {event.get('step')} is not saved: {event.get('error')}", BAD


def _failure(event: Mapping[str, Any]) -> tuple[str, str]:
    place = f"{event.get('role')}.{event.get('method')} on rank {event.get('rank')}, step {event.get('step')}"
    error = str(event.get("error")).strip().splitlines()
    return f"failure ({event.get('kind')}) in {place}: {error[-1] if error else ''}", BAD


def _recovery(event: Mapping[str, Any]) -> tuple[str, str]:
    return f"went on with step {event.get('step')}{_took(event, ' after ')}", GOOD


def _sink(event: Mapping[str, Any]) -> tuple[str, str]:
    return f"metric sink {event.get('name')} {event.get('told')}", BAD


def _end(event: Mapping[str, Any]) -> tuple[str, str]:
    error = str(event.get("error") or "").splitlines()
    why = f": {error[0]}" if error else ""
    return f"{event.get('status')} after {_steps(event)}{why}", NEUTRAL if event.get("status") == "ended" else BAD


def _alarm(event: Mapping[str, Any]) -> tuple[str, str]:
    name = str(event.get("name")).replace("_", " ")
    return f"{name}, step {event.get('step')}: {event.get('cause')} ({event.get('page')})", BAD


_WORDS = {
    "start": _start,
    "validation": _validation,
    "checkpoint": _checkpoint,
    "unsaved": _unsaved,
    "failure": _failure,
    "recovery": _recovery,
    "sink": _sink,
    "end": _end,
    "alarm": _alarm,
}


def _steps(event: Mapping[str, Any]) -> str:
    step = event.get("step")
    return counted(step, "step") if isinstance(step, int) else "some steps"


def _took(event: Mapping[str, Any], between: str = " in ") -> str:
    seconds = finite(event.get("seconds"))
    return "" if seconds is None else f"{between}{seconds:.1f} s"
