"""`trainer.json` of a checkpoint: what the trainer itself keeps there, checked before anything is started."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from hybridflow.errors import shown
from hybridflow.json_file import a_whole, read_object
from hybridflow.trainer.checkpoint_store import NAME, CheckpointError
from hybridflow.trainer.goodput import Spent
from hybridflow.trainer.progress import Learning, Progress

STATE = "trainer.json"
T = TypeVar("T")


@dataclass(frozen=True)
class SavedState:
    """State of the trainer.

    Attributes:
        algorithm: what `Algorithm.state` gave.
        files: sizes of the run folder's growing files, see `RunFolder.sizes`.
    """

    progress: Progress
    algorithm: dict[str, Any]
    files: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return what `read` reads."""
        best = None if self.progress.best_steps is None else self.progress.best  # JSON has no NaN
        return asdict(self.progress) | {"best": best, "algorithm": self.algorithm, "files": self.files}


def read(checkpoint: Path) -> SavedState:
    """Read the state of a checkpoint. Raises CheckpointError naming what in it is not as `to_json` writes it."""
    try:
        state = read_object(checkpoint / STATE)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    try:
        progress = _progress(state)
        name = NAME.fullmatch(checkpoint.name)
        if name and progress.steps != int(name[1]):
            raise ValueError(f"steps = {progress.steps}, in the folder {name[0]}")
        return SavedState(progress, _object(state.get("algorithm"), "algorithm"), _files(state.get("files")))
    except ValueError as error:
        raise CheckpointError(f"{checkpoint / STATE}: {error}") from error


def _progress(state: Mapping[str, Any]) -> Progress:
    """Read what had been measured; what a checkpoint of an earlier version lacks is as in a run without it."""
    best, best_steps = state.get("best"), state.get("best_steps")
    return Progress(
        a_whole(state.get("steps"), "steps"),
        _seconds(state.get("seconds"), "seconds"),
        _by_steps(state.get("accuracy"), "accuracy"),
        a_whole(state.get("draws"), "draws"),
        _by_steps(state.get("mean_grade", {}), "mean_grade"),
        _each(state.get("learning", {}), "learning", _learning),
        None if best_steps is None else a_whole(best_steps, "best_steps"),
        math.nan if best is None else _number(best, "best"),
        _text(state.get("rows_fingerprint", ""), "rows_fingerprint"),
        _spent(state.get("spent", {})),
        _object(state.get("schedule", {}), "schedule"),
    )


def _learning(value: object, what: str) -> Learning:
    entries = _object(value, what)
    known = {entry.name for entry in fields(Learning)}
    if strange := entries.keys() - known:
        raise ValueError(f"{what}.{min(strange)}: no such entry; there is {', '.join(sorted(known))}")
    moved = entries.get("moved", False)
    if not isinstance(moved, bool):
        raise ValueError(f"{what}.moved = {shown(moved)}: true or false was expected")
    counts = ("updates", "skipped", "nonfinite_in_a_row")
    updates, skipped, nonfinite = (_number(entries.get(name, 0.0), f"{what}.{name}") for name in counts)
    return Learning(updates, skipped, moved, nonfinite)


def _files(value: object) -> dict[str, int]:
    sizes = _each(value, "files", a_whole)
    if outside := [name for name in sizes if name.startswith("/") or ".." in name.split("/") or "\0" in name]:
        raise ValueError(f"files: {shown(outside[0])}: a file in the run folder was expected")
    return sizes


def _spent(value: object) -> dict[str, float]:
    seconds = _each(value, "spent", _seconds)
    known = [what.value for what in Spent]
    if strange := [what for what in seconds if what not in known]:
        raise ValueError(f"spent.{strange[0]} = {seconds[strange[0]]}: seconds of {', '.join(known)} were expected")
    return seconds


def _by_steps(value: object, what: str) -> dict[int, float]:
    """Read numbers by a number of steps, which is a text in JSON."""
    numbers = _each(value, what, _number)
    if strange := [steps for steps in numbers if not steps.isdecimal()]:
        raise ValueError(f"{what}: {shown(strange[0])}: a number of steps was expected")
    return {int(steps): number for steps, number in numbers.items()}


def _each(value: object, what: str, read_one: Callable[[object, str], T]) -> dict[str, T]:
    return {name: read_one(entry, f"{what}.{name}") for name, entry in _object(value, what).items()}


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} = {shown(value)}: an object was expected")
    return value


def _number(value: object, what: str) -> float:
    """Return a number, NaN too: a validation may have measured nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise ValueError(f"{what} = {shown(value)}: a number was expected")
    return float(value)


def _seconds(value: object, what: str) -> float:
    seconds = _number(value, what)
    if not seconds >= 0:
        raise ValueError(f"{what} = {seconds}: seconds, 0 or more, were expected")
    return seconds


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} = {shown(value)}: a text was expected")
    return value
