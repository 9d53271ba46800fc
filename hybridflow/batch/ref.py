"""BatchRef: the controller's handle on rows that live elsewhere.

Row operations touch row numbers only. What a handle is, and where its rows are, is for the controller's store to
know; this module treats it as opaque.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hybridflow.batch.columns import row_numbers


@dataclass(frozen=True)
class Source:
    """Some columns of every row of a BatchRef.

    Attributes:
        columns: their names.
        handles: the chunks they lie in.
        where: [R, 2] int64: the chunk and the row in that chunk, for each row.
    """

    columns: tuple[str, ...]
    handles: tuple[Any, ...]
    where: np.ndarray

    def select(self, rows: np.ndarray) -> Source:
        """The rows of those numbers; chunks that no row names any more are let go."""
        where = self.where[rows]
        used, renumbered = np.unique(where[:, 0], return_inverse=True)
        handles = tuple(self.handles[chunk] for chunk in used)
        return Source(self.columns, handles, np.stack([renumbered.reshape(-1), where[:, 1]], axis=1))


@dataclass(frozen=True)
class BatchRef:
    """R rows by reference, with the same row operations as `Batch`.

    Attributes:
        sources: where each column is.
        marks: [R] int64 columns that the controller knows itself and that travel with a call: `group_id` (rows with
            the same number are samples of one prompt) and `copy_id` (which of them a row is).
    """

    rows: int
    sources: tuple[Source, ...] = field(repr=False)
    marks: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(handle: Any, rows: int, columns: Sequence[str]) -> BatchRef:
        """All rows of one chunk."""
        where = np.stack([np.zeros(rows, dtype=np.int64), np.arange(rows, dtype=np.int64)], axis=1)
        return BatchRef(rows, (Source(tuple(columns), (handle,), where),))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return (*(name for source in self.sources for name in source.columns), *self.marks)

    def __len__(self) -> int:
        return self.rows

    def select(self, rows: ArrayLike) -> BatchRef:
        """The rows of those numbers, in that order; a number may come twice."""
        index = row_numbers(rows)
        marks = {name: values[index] for name, values in self.marks.items()}
        return BatchRef(len(index), tuple(source.select(index) for source in self.sources), marks)

    def keep(self, names: Sequence[str]) -> BatchRef:
        """Only the sources that hold one of those columns."""
        wanted = set(names)
        return BatchRef(self.rows, tuple(s for s in self.sources if wanted & set(s.columns)), self.marks)

    def repeat(self, times: int) -> BatchRef:
        """Each row `times` times, one after the other; the copies of a row become one group."""
        rows = np.repeat(np.arange(self.rows), times)
        marks = {"group_id": rows, "copy_id": np.tile(np.arange(times), self.rows)}
        return BatchRef(self.rows * times, self.select(rows).sources, marks)

    def split(self, parts: int) -> list[BatchRef]:
        """That many runs of rows, as even as whole rows allow; groups may be split."""
        return [self.select(rows) for rows in np.array_split(np.arange(self.rows), parts)]

    def __or__(self, other: BatchRef) -> BatchRef:
        """Union of columns. Raises ValueError for a column given twice, or other rows by their number or marks."""
        if self.rows != other.rows:
            raise ValueError(f"union of {self.rows} rows {self.columns} with {other.rows} rows {other.columns}")
        shared = set(self.marks) & set(other.marks)
        twice = (set(self.columns) & set(other.columns)) - shared
        if twice:
            raise ValueError(f"columns given twice: {', '.join(sorted(twice))}")
        differing = sorted(name for name in shared if not np.array_equal(self.marks[name], other.marks[name]))
        if differing:
            raise ValueError(f"union of rows that are not the same: they differ in {', '.join(differing)}")
        return BatchRef(self.rows, self.sources + other.sources, {**other.marks, **self.marks})


def concat(refs: Sequence[BatchRef]) -> BatchRef:
    """Rows end to end. Raises ValueError if the columns differ."""
    if not refs:
        return BatchRef(0, ())
    if len({frozenset(ref.columns) for ref in refs}) > 1:
        raise ValueError(f"cannot join rows with different columns: {[ref.columns for ref in refs]}")
    rows = sum(ref.rows for ref in refs)
    layouts = {tuple(source.columns for source in ref.sources) for ref in refs}
    if len(layouts) > 1:
        raise ValueError("cannot join rows whose columns came in different calls; join before the union")
    sources = tuple(_concat_sources(parts) for parts in zip(*(ref.sources for ref in refs), strict=True))
    marks = {name: np.concatenate([ref.marks[name] for ref in refs]) for name in refs[0].marks}
    return BatchRef(rows, sources, marks)


def _concat_sources(sources: Sequence[Source]) -> Source:
    starts = np.cumsum([0, *(len(s.handles) for s in sources)])[:-1]
    shifted = [s.where + np.array([start, 0]) for s, start in zip(sources, starts, strict=True)]
    return Source(sources[0].columns, tuple(h for s in sources for h in s.handles), np.concatenate(shifted))
