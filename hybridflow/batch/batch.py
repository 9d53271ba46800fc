"""Batch: named columns over rows, held in this process. Torch is not imported here, so light workers stay light."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hybridflow.batch import columns as col
from hybridflow.batch.columns import Column, Ragged
from hybridflow.batch.row_operations import Rows
from hybridflow.batch.short_runs import MANY, ShortRuns

Plain = dict[str, np.ndarray | tuple[np.ndarray, np.ndarray]]
"""By its name, a dense column, or the values and offsets of a ragged one."""

_NUMBERS = (bool, int, float, np.number, np.bool_)


class Batch(Rows):
    """R rows with named columns; immutable, equal by content (see `columns.equal`).

    Example:
        batch = Batch(prompt_ids=Ragged.of([[1, 2], [3]]), rewards=np.zeros(2))
        batch |= Batch(values=...)          # union of columns over the same rows
        best = batch.select([1, 0])         # rows, by number

    Lists of numbers given as columns become arrays, as do tensors; other lists become arrays of objects. An array is
    not copied but looked at: do not write to it any more.

    It has columns by name (`batch["rewards"]`, `in`, `columns`, `items()`) and a length, which is that of its rows. So
    it is no mapping, whose length would be that of its names, and is not iterated over, for that could mean either:
    `batch.columns` are the names.

    Raises ValueError if the columns disagree about the number of rows.
    """

    def __init__(self, **columns: Column | Sequence[object]) -> None:
        self._columns: dict[str, Column] = {name: _column(name, values) for name, values in columns.items()}
        counts = set(map(len, self._columns.values()))
        if len(counts) > 1:
            sizes = {name: len(column) for name, column in self._columns.items()}
            raise ValueError(f"columns have different numbers of rows: {sizes}")
        self._rows = counts.pop() if counts else 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self._columns)

    @property
    def rows(self) -> int:
        """Number of rows (`len(batch)` too)."""
        return self._rows

    @property
    def schema(self) -> dict[str, str]:
        """Kind of each column; see `columns.kind_of`."""
        return {name: col.kind_of(column) for name, column in self._columns.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of values and offsets. Entries of an object column count as 0: their size is not known here."""
        ragged = [column.offsets for column in self._columns.values() if isinstance(column, Ragged)]
        values = [col.values_of(column) for column in self._columns.values()]
        return sum(array.nbytes for array in (*ragged, *values) if array.dtype != object)

    def __len__(self) -> int:
        return self._rows

    __iter__ = None  # else Python would try batch[0], batch[1], … for want of it

    def items(self) -> ItemsView[str, Column]:
        """Return the names and columns, as a dictionary's."""
        return self._columns.items()

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> Column:
        try:
            return self._columns[name]
        except KeyError:
            raise KeyError(f"no column {name!r}; this batch has {', '.join(self._columns) or 'none'}") from None

    def dense(self, name: str) -> np.ndarray:
        """Return a column that must have one entry a row. Raises TypeError if it is ragged."""
        column = self[name]
        if isinstance(column, Ragged):
            raise TypeError(f"column {name!r} is ragged, a dense one was expected")
        return column

    def ragged(self, name: str) -> Ragged:
        """Return a column that must be ragged. Raises TypeError if it is dense."""
        column = self[name]
        if not isinstance(column, Ragged):
            raise TypeError(f"column {name!r} is dense, a ragged one was expected")
        return column

    def lengths(self, name: str) -> np.ndarray:
        """Return the lengths of a ragged column's rows, [R] int64. Raises TypeError if it is dense."""
        return self.ragged(name).lengths

    def select(self, rows: ArrayLike) -> Batch:
        """Return the rows of these numbers, in their order; a number may come twice. See `columns.select`."""
        index = col.row_numbers(rows, len(self))
        return Batch(**{name: col.select(column, index) for name, column in self._columns.items()})

    def select_columns(self, names: Sequence[str]) -> Batch:
        """Return only these columns."""
        return Batch(**{name: self[name] for name in names})

    def __or__(self, other: Batch) -> Batch:
        """Union of columns. Raises ValueError for a column given twice or another number of rows."""
        twice = sorted(set(self.columns) & set(other.columns))
        if twice:
            raise ValueError(f"columns given twice: {', '.join(twice)}")
        if self.columns and other.columns and len(self) != len(other):
            raise ValueError(f"union of {len(self)} rows {self.columns} with {len(other)} rows {other.columns}")
        return Batch(**self._columns, **other._columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Batch):
            return NotImplemented
        same_names = self._columns.keys() == other._columns.keys()
        return same_names and all(col.equal(column, other[name]) for name, column in self.items())

    __hash__ = None  # type: ignore[assignment]

    def to_wire(self) -> Plain:
        """Return the arrays in builtin containers, as which rows travel: pickle takes half the time for them."""
        return {
            name: (column.values, column.offsets) if isinstance(column, Ragged) else column
            for name, column in self._columns.items()
        }

    @staticmethod
    def from_wire(columns: Plain) -> Batch:
        """Return the batch whose `to_wire` these columns are. It is not checked again."""
        return Batch._unchecked(from_wire(columns, columns))

    @staticmethod
    def _unchecked(columns: dict[str, Column]) -> Batch:
        """Make a batch without the checks, of columns that agree by the way in which they were made."""
        batch = object.__new__(Batch)
        batch._columns = columns
        batch._rows = next(map(len, columns.values()), 0)
        return batch

    def __reduce__(self) -> tuple[Any, ...]:
        return Batch.from_wire, (self.to_wire(),)

    def __repr__(self) -> str:
        return f"Batch({self._rows} rows: {', '.join(self._columns)})"

    def _key(self, name: str) -> np.ndarray:
        return self.dense(name)


def from_wire(columns: Plain, names: Iterable[str]) -> dict[str, Column]:
    """Take columns of these names, as far as they are there, out of a batch's `to_wire`."""
    taken: dict[str, Column] = {}
    for name in names:
        column = columns.get(name)
        if column is not None:
            taken[name] = col._unchecked(*column) if isinstance(column, tuple) else col.readonly(column)
    return taken


def concat(batches: Sequence[Batch]) -> Batch:
    """Join rows end to end; empty parts without columns are left out.

    Raises ValueError if the columns differ, naming one that is of another kind in another part.
    """
    parts = [b for b in batches if b.columns]
    if not parts:
        return Batch()
    names = parts[0].columns
    for part in parts[1:]:
        if set(part.columns) != set(names):
            raise ValueError(f"cannot join rows with columns {sorted(part.columns)} to rows with {sorted(names)}")
    return Batch(**gather([(part, 0, len(part)) for part in parts], names))


def gather(runs: Sequence[tuple[Batch | Mapping[str, Column], int, int]], columns: Sequence[str]) -> dict[str, Column]:
    """Join runs of rows (a batch or its columns, start, stop) end to end: one copy, or none if there is one run.

    If there are no rows, columns that the first batch does not have are left out: a rank that had no rows does not know
    them. Raises ValueError naming a column that is of another kind in another batch.
    """
    if not runs or (len(runs) == 1 and runs[0][1] == runs[0][2]):
        columns = [name for name in columns if runs and name in runs[0][0]]
    gathered: dict[str, Column] = {}
    sources, short = _short(runs, columns) if len(runs) >= MANY and columns else ([], None)
    for name in columns:
        try:
            joined = None if short is None else col.gather_short([source[name] for source in sources], short)
            if joined is None:
                joined = col.gather([(batch[name], start, stop) for batch, start, stop in runs])
            gathered[name] = joined
        except ValueError as error:
            raise ValueError(f"column {name!r}: {error}") from error
    return gathered


def _short(
    runs: Sequence[tuple[Batch | Mapping[str, Column], int, int]], columns: Sequence[str]
) -> tuple[list[Batch | Mapping[str, Column]], ShortRuns]:
    """Return the different batches of some runs, and the runs by their numbers.

    Raises IndexError for rows that a batch does not have.
    """
    sources = list({id(batch): batch for batch, _, _ in runs}.values())
    number = {id(batch): place for place, batch in enumerate(sources)}
    of, starts, stops = np.array([(number[id(batch)], start, stop) for batch, start, stop in runs], dtype=np.int64).T
    sizes = np.array([len(source[columns[0]]) for source in sources])[of]
    for run in np.flatnonzero((starts < 0) | (starts > stops) | (stops > sizes)):
        raise IndexError(f"no rows {starts[run]}:{stops[run]} in run {run}, of {sizes[run]} rows")
    return sources, ShortRuns.of(of, starts, stops)


def _column(name: str, values: Column | Sequence[object]) -> Column:
    if isinstance(values, Ragged):
        return values
    if hasattr(values, "__array__") or (values and all(isinstance(value, _NUMBERS) for value in values)):
        array = np.asarray(values)
        if not array.ndim:
            raise ValueError(f"column {name!r} wants an entry for each row, found the one value {array}")
        return col.readonly(array)
    objects = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):  # one by one: numpy would unpack a list of lists
        objects[row] = value
    return col.readonly(objects)
