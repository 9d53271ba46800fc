"""Batch: named columns over rows, held in this process. Torch is not imported here, so light workers stay light."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from hybridflow.batch import columns as col
from hybridflow.batch.columns import Column, Ragged


class Batch(Mapping[str, Column]):
    """R rows with named columns; immutable.

    Example:
        batch = Batch(prompt_ids=Ragged.of([[1, 2], [3]]), rewards=np.zeros(2))
        batch |= Batch(values=...)          # union of columns over the same rows
        best = batch.select([1, 0])         # rows, by number

    Lists given as columns become arrays; strings and dicts become arrays of objects.
    Raises ValueError if the columns disagree about the number of rows.
    """

    def __init__(self, **columns: Column | Sequence[object]) -> None:
        self._columns: dict[str, Column] = {name: _column(values) for name, values in columns.items()}
        counts = {name: len(column) for name, column in self._columns.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"columns have different numbers of rows: {counts}")
        self._rows = next(iter(counts.values()), 0)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self._columns)

    @property
    def rows(self) -> int:
        """How many rows there are (`len(batch)` too)."""
        return self._rows

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> Column:
        try:
            return self._columns[name]
        except KeyError:
            raise KeyError(f"no column {name!r}; this batch has {', '.join(self._columns) or 'none'}") from None

    def dense(self, name: str) -> np.ndarray:
        """A column that must have one entry a row. Raises TypeError if it is ragged."""
        column = self[name]
        if isinstance(column, Ragged):
            raise TypeError(f"column {name!r} is ragged, a dense one was expected")
        return column

    def ragged(self, name: str) -> Ragged:
        """A column that must be ragged. Raises TypeError if it is dense."""
        column = self[name]
        if not isinstance(column, Ragged):
            raise TypeError(f"column {name!r} is dense, a ragged one was expected")
        return column

    def select(self, rows: ArrayLike) -> Batch:
        """The rows of those numbers, in that order; a number may come twice."""
        index = col.row_numbers(rows)
        return Batch(**{name: col.select(column, index) for name, column in self._columns.items()})

    def keep(self, names: Sequence[str]) -> Batch:
        """Only those columns."""
        return Batch(**{name: self[name] for name in names})

    def __or__(self, other: Batch) -> Batch:
        """Union of columns. Raises ValueError for a column given twice or another number of rows."""
        twice = sorted(set(self.columns) & set(other.columns))
        if twice:
            raise ValueError(f"columns given twice: {', '.join(twice)}")
        return Batch(**self._columns, **other._columns)

    def __repr__(self) -> str:
        return f"Batch({self._rows} rows: {', '.join(self._columns)})"


def concat(batches: Sequence[Batch]) -> Batch:
    """Rows end to end; empty parts without columns are left out. Raises ValueError if the columns differ."""
    parts = [b for b in batches if b.columns]
    if not parts:
        return Batch()
    names = parts[0].columns
    for part in parts[1:]:
        if set(part.columns) != set(names):
            raise ValueError(f"cannot join rows with columns {sorted(part.columns)} to rows with {sorted(names)}")
    return Batch(**{name: col.concat([part[name] for part in parts]) for name in names})


def _column(values: Column | Sequence[object]) -> Column:
    if isinstance(values, (np.ndarray, Ragged)):
        return values
    if values and isinstance(values[0], (bool, int, float, np.number)):
        return np.asarray(values)
    objects = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):  # one by one: numpy would unpack a list of lists
        objects[row] = value
    return objects
