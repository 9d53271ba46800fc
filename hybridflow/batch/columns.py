"""One column of a batch: dense (a numpy array, one entry a row) or ragged (values and offsets).

Invariant: a column never changes after it is made; row operations give new columns. The arrays may be read-only
views of shared memory, so an engine that writes copies first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Ragged:
    """R rows of different lengths, packed: row i is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: [T, ...] the rows, end to end; any trailing shape and dtype.
        offsets: [R + 1] int64, from 0 to T, never falling.
    """

    values: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def of(rows: Sequence[ArrayLike], dtype: np.dtype | type | None = None) -> Ragged:
        """Pack rows. `dtype` is needed when no row has a value or is an array, to tell it; int64 is the default."""
        arrays = [np.asarray(row, dtype=dtype) for row in rows]
        lengths = np.array([len(a) for a in arrays], dtype=np.int64)
        # numpy calls an empty list float64, which would turn token numbers beside it into floats.
        telling = [a for a, row in zip(arrays, rows, strict=True) if len(a) or isinstance(row, np.ndarray)]
        values = np.concatenate(telling) if telling else np.zeros(0, dtype=dtype or np.int64)
        return Ragged(values, offsets_of(lengths))

    def like(self, values: np.ndarray) -> Ragged:
        """Other values over the same rows. Raises ValueError if there are more or fewer of them."""
        if len(values) != self.offsets[-1]:
            raise ValueError(f"{len(values)} values for rows that hold {self.offsets[-1]}")
        return Ragged(values, self.offsets)

    @property
    def lengths(self) -> np.ndarray:
        """[R] int64, the length of each row."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        row = range(len(self))[row]
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    def select(self, rows: np.ndarray) -> Ragged:
        """The rows of those numbers, in that order."""
        lengths = self.lengths[rows]
        offsets = offsets_of(lengths)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Ragged(self.values[np.repeat(self.offsets[:-1][rows], lengths) + within], offsets)


Column = np.ndarray | Ragged


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """[R] lengths to [R + 1] offsets."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


def row_numbers(rows: ArrayLike) -> np.ndarray:
    """[n] int64. Raises TypeError for anything but whole numbers: a mask would be read as rows 0 and 1."""
    found = np.asarray(rows)
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"row numbers are wanted, {found.dtype} was given; for a mask use np.flatnonzero(mask)")
    return found.astype(np.int64, copy=False)


def select(column: Column, rows: np.ndarray) -> Column:
    """The rows of those numbers, in that order."""
    return column.select(rows) if isinstance(column, Ragged) else column[rows]


def concat(columns: Sequence[Column]) -> Column:
    """Columns end to end. Raises ValueError if some are ragged and some dense, or their dtypes differ.

    What is empty does not know its dtype (a rank may have had no rows) and is not asked.
    """
    parts = [c for c in columns if len(c)] or list(columns[:1])
    telling = [c for c in parts if not isinstance(c, Ragged) or len(c.values)] or parts[:1]
    kinds = {type(c).__name__ for c in parts}, {str((c.values if isinstance(c, Ragged) else c).dtype) for c in telling}
    if any(len(kind) > 1 for kind in kinds):
        raise ValueError(f"cannot join columns of different kinds: {', '.join(sorted(set.union(*kinds)))}")
    if isinstance(parts[0], Ragged):
        values = np.concatenate([c.values for c in telling if isinstance(c, Ragged)])
        return Ragged(values, offsets_of(np.concatenate([c.lengths for c in parts if isinstance(c, Ragged)])))
    return np.concatenate([c for c in parts if not isinstance(c, Ragged)])
