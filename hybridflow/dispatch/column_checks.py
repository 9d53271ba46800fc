"""A method's promises about columns and rows, checked where it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from hybridflow.batch import Batch
from hybridflow.batch.columns import kind_of
from hybridflow.dispatch.method import Method
from hybridflow.dispatch.protocol import Call


def check_given(declared: Method, call: Call) -> None:
    """Check that columns come as they are declared. Raises TypeError naming one that does not."""
    if not declared.kinds:
        return
    for value in (*call.args, *call.kwargs.values()):
        if isinstance(value, Batch):
            _check_kinds(declared, value, "was given")


def check_returned(declared: Method, value: Any, call: Call) -> None:
    """Check that a worker keeps its role's promise, on the ranks that give anything.

    Raises TypeError for rows where none are declared (or none where they are), for other columns or other kinds of
    columns than are declared, ValueError for another number of rows than were given.
    """
    if isinstance(value, Batch) != declared.returns_rows and declared.gives is None:
        said = "no rows (no `gives`, no Batch in its annotation)"
        if declared.returns_rows:
            said = "rows (its return is annotated so; a rank without any returns Batch())"
        raise TypeError(f"the method declares that it gives {said}, it returned {type(value).__name__}")
    if declared.gives is None or (isinstance(value, Batch) and not value.columns):
        return
    _check_columns(declared, value)
    wanted = _rows(call)
    if wanted is not None and len(value) != len(wanted):
        raise ValueError(f"the method was given {len(wanted)} rows and returned {len(value)}")


def check_streamed(declared: Method, pieces: Iterable[Any], call: Call) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield the pieces of a method that streams, each checked as `check_returned` does.

    Raises ValueError if a row is given twice, or is missing in the end.
    """
    wanted = _rows(call)
    assert wanted is not None  # a group refuses a call without rows
    times = np.zeros(len(wanted), dtype=np.int64)
    for rows, part in pieces:
        _check_columns(declared, part)
        if len(rows) != len(part):
            raise ValueError(f"the method gave {len(part)} rows for {len(rows)} row numbers")
        np.add.at(times, rows, 1)
        if times.max(initial=0) > 1:
            raise ValueError(f"the method gave row {int(times.argmax())} twice")
        yield rows, part
    if not times.all():
        raise ValueError(f"the method was given {len(wanted)} rows and gave {times.sum()}")


def _rows(call: Call) -> Batch | None:
    for value in (*call.args, *call.kwargs.values()):
        if isinstance(value, Batch):
            return value
    return None


def _check_columns(declared: Method, value: Any) -> None:
    assert declared.gives is not None
    if not isinstance(value, Batch) or (value.columns != declared.gives and set(value.columns) != set(declared.gives)):
        returned = value.columns if isinstance(value, Batch) else type(value).__name__
        raise TypeError(f"the method declares the columns {declared.gives}, it returned {returned}")
    _check_kinds(declared, value, "returned")


def _check_kinds(declared: Method, rows: Batch, said: str) -> None:
    """Check the kinds of columns. What is empty does not know its dtype and is not asked."""
    for name, kind in declared.kinds.items():
        if name in rows and len(rows) and kind_of(rows[name]) != kind:
            raise TypeError(f"column {name!r} is declared as {kind}, the method {said} {kind_of(rows[name])}")
