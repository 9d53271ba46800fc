"""Where rows lie: chunks of them, somewhere, and which row of which chunk a reference means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from hybridflow.batch.batch import Batch
from hybridflow.batch.columns import Ragged


@dataclass(frozen=True)
class Metadata:
    """What is known of rows without looking at them.

    Attributes:
        rows: how many.
        kinds: what each column is like (`ragged int`), by its name.
        lengths: [R] int64 of each ragged column.
    """

    rows: int = 0
    kinds: Mapping[str, str] = field(default_factory=dict)
    lengths: Mapping[str, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def of(batch: Batch) -> Metadata:
        """The metadata of rows that are here. Columns over the same offsets share one array of lengths."""
        ragged = {name: column.offsets for name, column in batch.items() if isinstance(column, Ragged)}
        shared = {id(offsets): np.diff(offsets) for offsets in ragged.values()}
        return Metadata(len(batch), batch.schema, {name: shared[id(offsets)] for name, offsets in ragged.items()})


class Chunk(Protocol):
    """Rows in one piece, somewhere."""

    def metadata(self) -> Metadata:
        """What is known of them. Waits until they have been made."""

    def get(self) -> Batch:
        """The rows themselves, here. Waits until they have been made."""


@dataclass(frozen=True, eq=False)
class Held:
    """A chunk in this process: to test a protocol, or to hand rows to a call."""

    batch: Batch

    def metadata(self) -> Metadata:
        """See `Chunk`."""
        return Metadata.of(self.batch)

    def get(self) -> Batch:
        """See `Chunk`."""
        return self.batch


@dataclass(frozen=True, eq=False)
class Source:
    """Some columns of every row of a BatchRef.

    Attributes:
        columns: their names.
        chunks: where they lie; a chunk may have more columns than these.
        where: [R, 2] int64: the chunk and the row in that chunk, for each row.
    """

    columns: tuple[str, ...]
    chunks: tuple[Any, ...]
    where: np.ndarray

    def select(self, rows: np.ndarray) -> Source:
        """The rows of those numbers.

        Chunks that no row names any more are let go; without rows one stays, to tell what the columns are like.
        """
        return self._named(self.where[rows])

    def slice(self, start: int, stop: int) -> Source:
        """Those rows, as `select` gives them."""
        return self._named(self.where[start:stop])

    def _named(self, where: np.ndarray) -> Source:
        if not len(where):
            like = self.where[0, 0] if len(self.where) else 0
            return Source(self.columns, self.chunks[like : like + 1], where)
        named = np.bincount(where[:, 0], minlength=len(self.chunks)) > 0
        if named.all():
            return Source(self.columns, self.chunks, where)
        chunks = tuple(chunk for chunk, is_named in zip(self.chunks, named.tolist(), strict=True) if is_named)
        return Source(self.columns, chunks, pairs((np.cumsum(named) - 1)[where[:, 0]], where[:, 1]))

    def runs(self) -> np.ndarray:
        """[K, 3] int64: (chunk, start, stop) of the rows, as few runs as there can be."""
        chunk, row = self.where[:, 0], self.where[:, 1]
        breaks = np.flatnonzero((row[1:] != row[:-1] + 1) | (chunk[1:] != chunk[:-1])) + 1
        first = np.concatenate([[0], breaks]) if len(row) else breaks
        found = np.empty((len(first), 3), dtype=np.int64)
        found[:, 0], found[:, 1] = chunk[first], row[first]
        found[:-1, 2], found[-1:, 2] = row[breaks - 1] + 1, row[-1:] + 1
        return found

    def of_each(self, value: Callable[[Any], np.ndarray]) -> np.ndarray:
        """[R] what `value` gives for a chunk's rows, for each row."""
        found = [np.asarray(value(chunk)) for chunk in self.chunks]
        starts = np.cumsum([0, *map(len, found)])[:-1]
        if not found:
            return np.zeros(0, dtype=np.int64)
        return np.concatenate(found)[starts[self.where[:, 0]] + self.where[:, 1]]


def pairs(chunk: np.ndarray, row: np.ndarray) -> np.ndarray:
    """[R, 2] int64 of two columns."""
    where = np.empty((len(row), 2), dtype=np.int64)
    where[:, 0], where[:, 1] = chunk, row
    return where
