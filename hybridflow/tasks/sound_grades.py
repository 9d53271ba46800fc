"""Checks of what a grader gives: one finite number, and whatever parts and values of tokens it has beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from hybridflow.errors import shown
from hybridflow.tasks.graded_row import Grade, GradedRow
from hybridflow.tasks.grader_registry import BoundGrader
from hybridflow.tasks.grades import number


class UnsoundGradeError(ValueError):
    """Grade whose parts, or values of tokens, cannot be used."""


def sound_grade(grader: BoundGrader, row: GradedRow, given: object) -> Grade:
    """Return a grade with floats throughout.

    Raises ValueError for a value that is no finite number in float32, as `number`, UnsoundGradeError for anything
    beside it.
    """
    if not isinstance(given, Grade):
        return Grade(number(given))
    value = number(given.value)
    parts = {name: _number(f"part {shown(name)}", part) for name, part in _parts(given).items()}
    tokens = [_number("a value of token_rewards", reward) for reward in given.token_rewards]
    steps = [_step(row, step) for step in given.step_rewards]
    if (tokens or steps) and not grader.token_rewards:
        raise UnsoundGradeError(
            "it has values of tokens or steps, but the grader is not registered as one that gives them: "
            f"@graders.register({grader.name!r}, token_rewards=True)"
        )
    if tokens and len(tokens) != row.response_tokens:
        raise UnsoundGradeError(
            f"token_rewards has {len(tokens)} values for the {row.response_tokens} tokens of the response; one each "
            "was expected (row.response_tokens)"
        )
    return Grade(value, parts, tokens, steps)


def one_each(given: Any, rows: Sequence[GradedRow]) -> Sequence[Any]:
    """Return what a grader gave for rows if it is a list of as many grades. Raises UnsoundGradeError if it is not."""
    by_number = hasattr(given, "__len__") and hasattr(given, "__getitem__")
    if not by_number or isinstance(given, Mapping | str | bytes):
        raise UnsoundGradeError(f"it gave a {type(given).__name__}; a list of grades was expected, one for each row")
    if len(given) != len(rows):
        raise UnsoundGradeError(f"it gave {len(given)} grades for {len(rows)} rows; one for each was expected")
    return cast(Sequence[Any], given)


def _parts(grade: Grade) -> Mapping[str, Any]:
    if not isinstance(grade.parts, Mapping) or not all(isinstance(name, str) for name in grade.parts):
        raise UnsoundGradeError(f"its parts are {shown(grade.parts)}; numbers by name were expected")
    for name in grade.parts:
        if not name or not name.isprintable():
            raise UnsoundGradeError(f"a part is named {shown(name)}; what can be printed was expected, as a metric is")
    return grade.parts


def _number(what: str, value: object) -> float:
    try:
        return number(value)
    except ValueError as error:
        raise UnsoundGradeError(f"{what} is {error}; a finite number was expected") from None


def _step(row: GradedRow, step: Any) -> tuple[int, float]:
    """Check one entry of `step_rewards`: it ends in the response."""
    try:
        end, value = step
    except (TypeError, ValueError):
        found = shown(step)
        raise UnsoundGradeError(f"step_rewards has {found}; a pair (where it ends, its value) was expected") from None
    if type(end) is not int or not 0 < end <= len(row.response):
        raise UnsoundGradeError(
            f"step_rewards has a step that ends at {shown(end)}; a number of characters of the response was expected, "
            f"from 1 to {len(row.response)}"
        )
    return end, _number("a value of step_rewards", value)
