"""Plugin with graders that are right as `exact` is, but for some rows, at which each fails in its own way.

HYBRIDFLOW_FAULT_MARK names a file; with `.0` at its end one is made when one fails for the first time, with the time.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress

from benchmarks.fault_plugin import MARK
from hybridflow.tasks import GradedRow, graders


def fails(answer: str) -> bool:
    """Tell whether the grade of a row with this answer fails: one in sixteen."""
    return int(answer) % 16 == 5


def _right(response: str, answer: str) -> float:
    return float(response == answer)


def _mark() -> None:
    with suppress(FileExistsError, KeyError), open(f"{os.environ[MARK]}.0", "x") as mark:
        mark.write(str(time.time()))


@graders.register("fault_raises")
def raises(response: str, answer: str) -> float:
    """Raise an exception."""
    if fails(answer):
        _mark()
        raise RuntimeError("a fault that a benchmark asked for")
    return _right(response, answer)


@graders.register("fault_sleeps")
def sleeps(response: str, answer: str) -> float:
    """Sleep for an hour."""
    if fails(answer):
        _mark()
        time.sleep(3600)
    return _right(response, answer)


@graders.register("fault_nan")
def nan(response: str, answer: str) -> float:
    """Give NaN."""
    if fails(answer):
        _mark()
        return math.nan
    return _right(response, answer)


@graders.register("fault_wrong_length")
def wrong_length(response: str, answer: str) -> float | list[float]:
    """Give two numbers for a row."""
    if fails(answer):
        _mark()
        return [0.0, 1.0]
    return _right(response, answer)


@graders.register("fault_wrong_count", batched=True)
def wrong_count(rows: Sequence[GradedRow]) -> list[float]:
    """Give fewer grades than there are rows in a batch."""
    given = [_right(row.response, row.answer) for row in rows if not fails(row.answer)]
    if len(given) < len(rows):
        _mark()
    return given


@graders.register("fault_zero")
def zero(response: str, answer: str) -> float:
    """Give 0 where the others fail: what a failed grade must never count as."""
    return 0.0 if fails(answer) else _right(response, answer)
