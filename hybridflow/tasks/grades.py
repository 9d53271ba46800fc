"""Grades: what every reward, baseline and cost must be, whoever gives it, and what becomes of one that is not.

A grade is a finite number that float32 can hold, one a response. Anything else, an exception in a grader too, is a
failed grade; so is any of a conversation whose environment failed. It stands as NaN in its column, so nobody can take
it for a reward of 0; a row with one is left out of everything that compares or learns (`graded`), and is counted. How
many may fail is `reward.max_failed_share` and `cost.max_failed_share`: at 0 the first one ends the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.loss_mask import learned_rows
from hybridflow.config.schema import Config
from hybridflow.errors import shown
from hybridflow.observe.metrics import Metrics
from hybridflow.tasks.tokenizer import load_decoder


class Kind(NamedTuple):
    """Kind of a column of grades: the section of settings that it belongs to, and the prefix of its metrics' names."""

    section: str
    prefix: str


GRADES: Mapping[str, Kind] = {
    "rewards": Kind("reward", "reward/"),
    "baseline_rewards": Kind("reward", "reward/baseline_"),
    "costs": Kind("cost", "cost/"),
}
FAILURE = "environment_failure"
"""Column that says why the environment of a row failed; "" if it did not."""


def number(grade: object) -> float:
    """Return a grade as a float: a bool, an int, a float, whatever library it is of, or an array of no dimensions.

    Raises ValueError, saying what was found, for anything that is not one finite number in float32.
    """
    value = grade.item() if getattr(grade, "ndim", None) == 0 and not np.ma.is_masked(grade) else grade  # type: ignore[attr-defined]
    if not isinstance(value, (Real, Decimal)):
        raise ValueError(f"{shown(grade)}, of type {type(grade).__name__}")
    try:
        with np.errstate(over="ignore"):
            result = float(np.float32(float(value)))
    except (OverflowError, ValueError):  # an int of 400 digits; a signaling NaN
        result = math.inf
    if not math.isfinite(result):
        raise ValueError(f"{shown(grade)}, which is no finite number in float32")
    return result


def graded(rows: Batch) -> np.ndarray:
    """Return [R] bool: True for rows none of whose grades has failed. Rows without a column of grades have none that
    could.
    """
    sound = np.ones(len(rows), dtype=bool)
    for name in GRADES:
        if name in rows:
            sound &= np.isfinite(rows.dense(name))
    return sound


def learnable(rows: Batch) -> np.ndarray:
    """Return [R] bool: True for rows none of whose grades has failed and of which `loss_mask` leaves a token."""
    return graded(rows) & learned_rows(rows)


def only_learnable(rows: Batch) -> Batch:
    """Select the rows that can be learned from."""
    usable = learnable(rows)
    return rows if usable.all() else rows.select(np.flatnonzero(usable))


def over_learnable(rows: Batch, estimate: Callable[[Batch], Batch]) -> Batch:
    """Apply `estimate` to the rows to learn from; return its ragged columns over responses, 0 for the others' tokens.

    `estimate` is called on every rank, also with no rows, as it may wait for the other ranks.
    """
    sound = learnable(rows)
    if sound.all():
        return estimate(rows)
    responses = rows.ragged("response_ids")
    tokens = np.repeat(sound, responses.lengths)
    columns: dict[str, Ragged] = {}
    for name, column in estimate(rows.select(np.flatnonzero(sound))).items():
        assert isinstance(column, Ragged), f"{name} is not ragged over responses"
        values = np.zeros(len(tokens), dtype=column.values.dtype)
        values[tokens] = column.values
        columns[name] = responses.like(values)
    return Batch(**columns)


def gives_grades(output: Any) -> bool:
    """Tell whether what a call returned has a column of grades."""
    return isinstance(output, Batch) and not GRADES.keys().isdisjoint(output.columns)


def settled(output: Any, rows: Batch | None, config: Config, metrics: Metrics) -> Any:
    """Return a call's output with its columns of grades checked and measured: float32, NaN where a grade has failed.

    Whatever a grader or a model makes of a conversation whose environment failed is no grade of it.

    Raises ValueError naming the first that failed, its response and its answer, if none may.

    Args:
        rows: the rows that were to be graded.
    """
    if not gives_grades(output):
        return output
    columns = dict(output.items())
    for name, kind in GRADES.items():
        column = columns.get(name)
        if column is None or isinstance(column, Ragged):  # that it must not be ragged is told by the one who asked
            continue
        values = _numbers(column)
        failed = ~np.isfinite(values) | _environment_failed(rows, len(values))
        if failed.any() and not getattr(config, kind.section).max_failed_share:
            raise ValueError(_refusal(name, kind, int(failed.argmax()), column, rows, config))
        metrics.spread(kind.prefix, values[~failed])
        metrics.mean(f"{kind.prefix}failed_share", int(failed.sum()), len(failed))
        metrics.total(f"{kind.prefix}failed_grades", int(failed.sum()))
        columns[name] = np.where(failed, np.float32(np.nan), values) if failed.any() else values
    return Batch(**columns)


def _environment_failed(rows: Batch | None, count: int) -> np.ndarray:
    """Return [R] bool: True for conversations whose environment failed, if rows are known and any."""
    if rows is None or FAILURE not in rows or len(rows) != count:
        return np.zeros(count, dtype=bool)
    return np.array(rows.dense(FAILURE) != "", dtype=bool)


def too_many_failed(config: Config, metrics: Mapping[str, float]) -> str | None:
    """Return a message if more grades of a step, or a validation, failed than may."""
    for kind in GRADES.values():
        share = metrics.get(f"{kind.prefix}failed_share", 0.0)
        max_share = getattr(config, kind.section).max_failed_share
        if share > max_share:
            count = metrics[f"{kind.prefix}failed_grades"]
            return (
                f"{count:.0f} grades failed ({kind.prefix}failed_grades), {share:.1%} of all; "
                f"{kind.section}.max_failed_share allows {max_share:.1%}. With {kind.section}.max_failed_share=0 a run "
                "ends at the first of them and shows it"
            )
    return None


def _numbers(column: np.ndarray) -> np.ndarray:
    """Convert a column to [R] float32; what is no number, or too large, becomes something that is not finite."""
    if column.ndim == 1 and column.dtype.kind in "biuf":
        with np.errstate(over="ignore"):
            return column.astype(np.float32, copy=False)
    return np.array([_number_or_nan(grade) for grade in column], dtype=np.float32)


def _number_or_nan(grade: object) -> float:
    try:
        return number(grade)
    except ValueError:
        return math.nan


def _refusal(name: str, kind: Kind, row: int, column: np.ndarray, rows: Batch | None, config: Config) -> str:
    """Explain what is wrong with the grade of a row, and of which response it is."""
    found = f"{shown(column[row])} given, a finite number expected, one a response"
    if rows is not None and _environment_failed(rows, len(column))[row]:
        found = f"its environment failed: {rows.dense(FAILURE)[row]}"
    place = f"{name} of row {row}: {found}"
    if rows is not None and len(rows) == len(column) and "response_ids" in rows:
        decode = load_decoder(config.actor.model.path)
        answer = f", answer {shown(rows.dense('answer')[row])}" if "answer" in rows else ""
        place += f" (response {shown(decode(rows.ragged('response_ids')[row].tolist()))}{answer})"
    return f"{place}. {kind.section}.max_failed_share lets a run go on without such rows"
