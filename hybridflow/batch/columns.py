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
        """Pack rows. `dtype` is needed when there is no row to tell it."""
        arrays = [np.asarray(row, dtype=dtype) for row in rows]
        lengths = np.array([len(a) for a in arrays], dtype=np.int64)
        values = np.concatenate(arrays) if arrays else np.zeros(0, dtype=dtype or np.int64)
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


def select(column: Column, rows: np.ndarray) -> Column:
    """The rows of those numbers, in that order."""
    return column.select(rows) if isinstance(column, Ragged) else column[rows]


def concat(columns: Sequence[Column]) -> Column:
    """Columns end to end. Raises ValueError if some are ragged and some dense, or their dtypes differ."""
    kinds = {(type(c).__name__, str((c.values if isinstance(c, Ragged) else c).dtype)) for c in columns}
    if len(kinds) > 1:
        raise ValueError(f"cannot join columns of different kinds: {sorted(kinds)}")
    if isinstance(columns[0], Ragged):
        ragged = [c for c in columns if isinstance(c, Ragged)]
        return Ragged(np.concatenate([c.values for c in ragged]), offsets_of(np.concatenate([c.lengths for c in ragged])))
    return np.concatenate(columns)
