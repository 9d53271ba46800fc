"""Curricula: rows in the order of a field that tells how hard they are (`task.curriculum`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hybridflow.config.schema import CurriculumConfig
from hybridflow.errors import shown
from hybridflow.tasks.row_order import Curriculum
from hybridflow.tasks.task import Task, named_row


def read_curriculum(task: Task, split: str, settings: CurriculumConfig) -> Curriculum:
    """Read the field of every row of a split. Raises DataError naming a row that has none, or no level in it."""
    levels = np.empty(task.size(split), dtype=np.float64)
    for number in range(len(levels)):
        metadata = task.example(split, number).metadata
        with named_row(task, split, number):
            levels[number] = level_of(metadata, settings)
    return Curriculum(-levels if settings.descending else levels, settings.pools)


def level_of(metadata: Mapping[str, Any], settings: CurriculumConfig) -> float:
    """Return a row's level: its number, or the place of its value in `levels`. Raises ValueError if it has none."""
    value = _field(metadata, settings.by)
    if settings.levels:
        if str(value) not in settings.levels:
            known = ", ".join(settings.levels)
            raise ValueError(f"{settings.by!r} is {shown(value)}, which is not in task.curriculum.levels: {known}")
        return float(settings.levels.index(str(value)))
    try:
        level = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, OverflowError):  # no number, or an integer of 400 digits
        level = math.nan
    if not math.isfinite(level):
        raise ValueError(
            f"{settings.by!r} is {shown(value)}, and task.curriculum.by sorts by a number; list its values, from easy "
            "to hard, in task.curriculum.levels"
        )
    return level


def _field(metadata: Mapping[str, Any], path: str) -> Any:
    """Return a field of the metadata, `extra_info.level` being one inside another."""
    found: Any = metadata
    for name in [path] if path in metadata else path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            raise ValueError(
                f"it has no {path!r} among its metadata, which task.curriculum.by sorts by; it has "
                f"{', '.join(map(str, metadata)) or 'none'}"
            )
        found = found[name]
    return found
