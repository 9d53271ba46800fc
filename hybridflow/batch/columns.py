"""One column of a batch: dense (a numpy array, one entry a row) or ragged (values and offsets).

Invariant: a column never changes after it is made. The arrays that it holds are read-only, often views of somebody
else's memory; row operations give new columns, and copy no more than once. Who wants to write copies first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hybridflow.batch import short_runs

_NUMBERS = {"b": "bool", "i": "int", "u": "int", "f": "float"}  # numpy's dtype.kind
_ZERO = np.zeros(1, dtype=np.int64)
_ENTRIES = ("bool", "int", "float", "object")
KINDS = (*_ENTRIES, *(f"ragged {entry}" for entry in _ENTRIES))
"""What `kind_of` can say."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """Packed rows of different lengths: row i is `values[offsets[i]:offsets[i + 1]]`. Equal by content.

    Attributes:
        values: [T, ...] the rows, end to end; any trailing shape and dtype. Read-only.
        offsets: [R + 1] int64, from 0 to T, never falling. Read-only.

    Raises ValueError for other offsets.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        values = readonly(self.values)
        offsets = readonly(self.offsets)
        if offsets.ndim != 1 or offsets.dtype != np.int64 or not len(offsets):
            raise ValueError(f"offsets are [rows + 1] int64, found {list(offsets.shape)} {offsets.dtype}")
        if offsets[0] != 0 or offsets[-1] != len(values):
            raise ValueError(f"offsets of {len(values)} values go from {offsets[0]} to {offsets[-1]}")
        falling = np.flatnonzero(offsets[1:] < offsets[:-1])
        if len(falling):
            row = falling[0]
            raise ValueError(f"offsets fall at row {row}: from {offsets[row]} to {offsets[row + 1]}")
        self.__dict__.update(values=values, offsets=offsets)

    @staticmethod
    def of(rows: Sequence[ArrayLike], dtype: np.dtype | type | None = None) -> Ragged:
        """Pack rows. `dtype` is needed when no row has a value or is an array, to tell it; int64 is the default."""
        arrays = [np.asarray(row, dtype=dtype) for row in rows]
        lengths = np.array([len(a) for a in arrays], dtype=np.int64)
        # numpy calls an empty list float64, which would turn token numbers beside it into floats.
        telling = [a for a, row in zip(arrays, rows, strict=True) if len(a) or isinstance(row, np.ndarray)]
        values = np.concatenate(telling) if telling else np.zeros(0, dtype=dtype or np.int64)
        return _unchecked(readonly(values), offsets_of(lengths))

    def like(self, values: np.ndarray) -> Ragged:
        """Return other values over the same rows. Raises ValueError if there are more or fewer of them."""
        if len(values) != self.offsets[-1]:
            raise ValueError(f"{len(values)} values for rows that hold {self.offsets[-1]}")
        return _unchecked(readonly(values), self.offsets)

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row, [R] int64."""
        return self.offsets[1:] - self.offsets[:-1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        row = range(len(self))[row]
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return equal(self, other) if isinstance(other, Ragged) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _unchecked, (self.values, self.offsets)

    def select(self, rows: ArrayLike) -> Ragged:
        """Return the rows of these numbers, in their order; a view if they are consecutive."""
        selected = select(self, rows)
        assert isinstance(selected, Ragged)
        return selected


Column = np.ndarray | Ragged


def kind_of(column: Column) -> str:
    """Return bool, int, float or object (all the rest, strings too); with "ragged " before it for a ragged column."""
    kind = _NUMBERS.get(values_of(column).dtype.kind, "object")
    return f"ragged {kind}" if isinstance(column, Ragged) else kind


def values_of(column: Column) -> np.ndarray:
    """Return the values of a ragged column, [T, ...], or a dense one itself, [R, ...]."""
    return column.values if isinstance(column, Ragged) else column


def readonly(values: ArrayLike) -> np.ndarray:
    """Return the array as a column stores it: a read-only view; strings are objects, as their width is no part of a
    kind.

    Raises ValueError for an array without rows to count.
    """
    array = np.asarray(values)
    if not array.ndim:
        raise ValueError(f"an entry for each row is wanted, found the one value {array}")
    if array.dtype.kind in "US":
        array = array.astype(object)
    if array.flags.writeable:
        array = array.view()
        array.setflags(write=False)
    return array


def equal(one: Column, other: Column) -> bool:
    """Tell whether kind, shape and every value are the same. NaN equals NaN; entries may be arrays."""
    if kind_of(one) != kind_of(other):
        return False
    if isinstance(one, Ragged) and isinstance(other, Ragged) and not np.array_equal(one.offsets, other.offsets):
        return False
    a = values_of(one)
    b = values_of(other)
    if a.dtype == object or b.dtype == object:
        return a.shape == b.shape and all(map(_equal_objects, a.ravel(), b.ravel()))
    return np.array_equal(a, b, equal_nan=True)


def offsets_of(lengths: ArrayLike) -> np.ndarray:
    """Sum [R] lengths up to [R + 1] offsets."""
    counts = np.asarray(lengths, dtype=np.int64)
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def row_numbers(rows: ArrayLike, count: int) -> np.ndarray:
    """Check row numbers, of which there are `count`, as [n] int64; negative ones count from the end.

    Raises TypeError for anything but whole numbers (a mask would be read as rows 0 and 1), and IndexError for a number
    that no row has.
    """
    numbers = np.asarray(rows)
    if numbers.ndim != 1:
        raise TypeError(f"a list of row numbers is wanted, an array of shape {list(numbers.shape)} was given")
    if numbers.size and numbers.dtype.kind not in "iu":
        raise TypeError(f"row numbers are wanted, {numbers.dtype} was given; for a mask use np.flatnonzero(mask)")
    missing = numbers[(numbers < -count) | (numbers >= count)]
    if len(missing):
        raise IndexError(f"no row {missing[0]}; there are {count}")
    return np.where(numbers < 0, numbers + count, numbers).astype(np.int64, copy=False)


def runs(rows: np.ndarray) -> np.ndarray:
    """Find the runs of consecutive numbers among [n] row numbers: [K, 2] int64 (start, stop), as few as possible."""
    if not len(rows):
        return np.zeros((0, 2), dtype=np.int64)
    last = np.concatenate([np.flatnonzero(rows[1:] != rows[:-1] + 1), [len(rows) - 1]])
    first = np.concatenate([[0], last[:-1] + 1])
    return np.column_stack([rows[first], rows[last] + 1])


def select(column: Column, rows: ArrayLike) -> Column:
    """Return the rows of these numbers, in their order; a view if they are consecutive. Raises as `row_numbers`."""
    index = row_numbers(rows, len(column))
    count = len(index) - int(np.count_nonzero(index[1:] == index[:-1] + 1))  # of runs
    if count > 1 and not isinstance(column, Ragged):
        return readonly(column[index])
    if count >= short_runs.MANY:
        joined = gather_short([column], short_runs.ShortRuns(index, index, count))
        if joined is not None:
            return joined
    return gather([(column, start, stop) for start, stop in runs(index).tolist() or [(0, 0)]])


def gather(runs: Sequence[tuple[Column, int, int]]) -> Column:
    """Join runs of rows (column, start, stop) end to end, by one copy; a view if there is one run.

    What is empty does not know its dtype (a rank may have had no rows) and is not asked. Raises ValueError if there is
    no run, if some columns are ragged and some dense, or if their dtypes or trailing shapes differ, and IndexError for
    rows that a column does not have.
    """
    for number, (column, start, stop) in enumerate(runs):
        if not 0 <= start <= stop <= len(column):  # numpy would give the rows that there are, and say nothing
            raise IndexError(f"no rows {start}:{stop} in run {number}, of {len(column)} rows")
    if len(runs) == 1:
        return _slice(*runs[0])
    like = _agreed(list({id(column): column for column, _, _ in runs}.values()))
    if isinstance(like, Ragged):
        return _gather_ragged(runs, like)
    return _joined([values_of(column)[start:stop] for column, start, stop in runs], like)


def gather_short(columns: Sequence[Column], runs: short_runs.ShortRuns) -> Column | None:
    """Join many runs of rows end to end as `gather` does; None if they are too long for this to be the faster way.

    Args:
        columns: one for each source of the runs, which have their rows.
    """
    like = _agreed(columns)
    if not isinstance(like, Ragged):
        return readonly(runs.join([values_of(column) for column in columns], like))
    # What is not ragged beside it is empty.
    packed = [(c.values, c.offsets) if isinstance(c, Ragged) else (c, _ZERO) for c in columns]
    joined = runs.join_ragged(packed, like.values)
    return None if joined is None else _unchecked(*joined)


def _slice(column: Column, start: int, stop: int) -> Column:
    """Slice one column as a view. Offsets are a view too where they can be."""
    if not isinstance(column, Ragged):
        return readonly(column[start:stop])
    if (start, stop) == (0, len(column)):
        return column
    offsets = column.offsets[start : stop + 1]
    first = offsets.item(0)
    end = offsets.item(-1)
    return _unchecked(column.values[first:end], offsets - first if first else offsets)


def _gather_ragged(runs: Sequence[tuple[Column, int, int]], like: Ragged) -> Ragged:
    pieces: list[np.ndarray] = []
    offsets = [_ZERO]
    end = 0
    for column, start, stop in runs:
        if isinstance(column, Ragged):  # or it is empty
            first = column.offsets.item(start)
            last = column.offsets.item(stop)
            pieces.append(column.values[first:last])
            offsets.append(column.offsets[start + 1 : stop + 1] + (end - first))
            end += last - first
    return _unchecked(_joined(pieces, like.values), np.concatenate(offsets))


def _joined(pieces: Sequence[np.ndarray], like: np.ndarray) -> np.ndarray:
    filled = [piece for piece in pieces if len(piece)] or [like[:0]]
    joined = filled[0] if len(filled) == 1 else np.concatenate(filled)
    joined.setflags(write=False)
    return joined


def _agreed(columns: Sequence[Column]) -> Column:
    """Return a column that all the others are like. Raises ValueError if there is none."""
    if not columns:
        raise ValueError("there are no columns to join")
    first, *others = columns
    for other in others:
        if not _alike(first, other):
            break
    else:
        return first
    filled = [c for c in columns if len(c)] or columns[:1]
    telling = [c for c in filled if len(values_of(c))] or filled[:1]
    ragged = {isinstance(c, Ragged) for c in filled}
    entries = {(v.dtype, v.shape[1:]) for v in map(values_of, telling)}
    if len(ragged) > 1 or len(entries) > 1:
        kinds = ", ".join(sorted({_described(c) for c in filled}))
        raise ValueError(f"cannot join columns of different kinds: {kinds}")
    return telling[0]


def _alike(one: Column, other: Column) -> bool:
    a = values_of(one)
    b = values_of(other)
    return type(one) is type(other) and a.dtype == b.dtype and a.shape[1:] == b.shape[1:]


def _described(column: Column) -> str:
    values = values_of(column)
    trailing = f" {list(values.shape[1:])}" if values.ndim > 1 else ""
    return f"{'ragged' if isinstance(column, Ragged) else 'dense'} {values.dtype}{trailing}"


def _unchecked(values: np.ndarray, offsets: np.ndarray) -> Ragged:
    """Make a ragged column of arrays that are right by the way in which they were made. They become read-only."""
    values.setflags(write=False)
    offsets.setflags(write=False)
    column: Ragged = object.__new__(Ragged)
    column.__dict__.update(values=values, offsets=offsets)
    return column


def _equal_objects(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)  # type: ignore[arg-type]
    return bool(one == other) or bool(one != one and other != other)
