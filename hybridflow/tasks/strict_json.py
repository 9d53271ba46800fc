"""A row of a data file as JSON, read strictly: what one reader takes and another does not is told, not guessed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from hybridflow.errors import shown

DEEPEST = 100  # levels of brackets within a column


class RowError(ValueError):
    """Fault of a row of a data file, without its place.

    Attributes:
        reason: the kind of fault, by which rows are counted.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def parse_row(line: bytes) -> dict[str, Any]:
    """Read one JSON object.

    Raises RowError for what is not UTF-8, not JSON, no object, has a key twice, or a number that JSON does not have,
    and for a value nested too deep.
    """
    found = _Found()
    try:
        value = json.loads(
            line.decode(), object_pairs_hook=_once, parse_constant=found.constant, parse_float=found.real
        )
    except UnicodeDecodeError as error:
        raise RowError(f"byte {error.start + 1} of the row is not UTF-8 ({error.reason})", "not UTF-8") from error
    except json.JSONDecodeError as error:
        raise RowError(f"not JSON at character {error.pos + 1}: {error.msg}", "not JSON") from error
    except RowError:
        raise
    except (ValueError, RecursionError) as error:  # a number of too many digits, too many brackets
        raise RowError(f"not readable as JSON: {error}", "not JSON") from error
    if not isinstance(value, dict):
        raise RowError(f"{shown(value)} is no JSON object; {{…}} with a value by column was expected", "no JSON object")
    if found.not_finite:
        refuse_not_finite(value)
    if line.count(b"{") + line.count(b"[") > DEEPEST:
        _refuse_deep(value)
    return value


def _refuse_deep(row: Mapping[str, Any]) -> None:
    """Raise RowError for a value that is nested deeper than every reader of the row can follow."""
    for name, value in row.items():
        level = [value]
        for _ in range(DEEPEST):
            inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
            level = [entry for entries in inner for entry in entries]
        if level:
            raise RowError(
                f"column {name!r} is nested deeper than {DEEPEST} levels; a flatter value was expected",
                "nested too deep",
            )


class _Found:
    """Notes whether a number was not finite, for which values are searched only then."""

    def __init__(self) -> None:
        self.not_finite = False

    def constant(self, text: str) -> float:
        self.not_finite = True
        return float(text)

    def real(self, text: str) -> float:
        value = float(text)
        self.not_finite = self.not_finite or math.isinf(value)
        return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RowError(f"column {twice!r} is there {names.count(twice)} times; once was expected", "duplicate keys")
    return value


def refuse_not_finite(row: Mapping[str, Any]) -> None:
    """Raise RowError naming the first value of a row that is NaN or infinite, or too large for a float."""
    place = _not_finite(row)
    if place is not None:
        raise RowError(
            f"column {'.'.join(place)!r} is NaN, infinite or too large for a number; a finite number or null was "
            "expected",
            "NaN or Infinity",
        )


def _not_finite(value: object) -> tuple[str, ...] | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else ()
    entries: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        if isinstance(entry, float | dict | list) and (inner := _not_finite(entry)) is not None:
            return (str(name), *inner)
    return None
