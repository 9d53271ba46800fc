"""Sources of rows: chunks of them, somewhere, and which row of which chunk a reference means."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np

from hybridflow.batch.batch import Batch
from hybridflow.batch.columns import Column, Ragged
from hybridflow.batch.loss_mask import LOSS_MASK, learned_lengths

REPORTED = ("rewards", "baseline_rewards", "costs", "truncated", "rollout_id", "group_id")
"""Columns of one number a row by which the controller chooses among rows, and which therefore travel with reports."""

Run = tuple[Any, int, int]
"""Rows of a chunk, from `start` to `stop`, without it."""


class Metadata(NamedTuple):
    """Facts about rows that are known without looking at them.

    Attributes:
        rows: how many.
        kinds: kind of each column (`ragged int`), by its name.
        lengths: [R] int64 of each ragged column.
        numbers: [R] of each column that is `REPORTED`, and of `loss_mask` how many tokens of each row it leaves.
    """

    rows: int = 0
    kinds: Mapping[str, str] = {}
    lengths: Mapping[str, np.ndarray] = {}
    numbers: Mapping[str, np.ndarray] = {}

    @staticmethod
    def of(batch: Batch) -> Metadata:
        """Describe rows that are here. Columns over the same offsets share one array of lengths."""
        lengths: dict[str, np.ndarray] = {}
        shared: dict[int, np.ndarray] = {}
        numbers: dict[str, np.ndarray] = {}
        for name, column in batch.items():
            if isinstance(column, Ragged):
                offsets = id(column.offsets)
                if offsets not in shared:
                    shared[offsets] = column.lengths
                lengths[name] = shared[offsets]
            if name in REPORTED or name == LOSS_MASK:
                numbers |= _numbers(name, column)
        return Metadata(batch.rows, batch.schema, lengths, numbers)


def _numbers(name: str, column: Column) -> dict[str, np.ndarray]:
    """Return what a report says of such a column; nothing if it is not what it should be, as its readers will say."""
    if isinstance(column, Ragged):
        numeric = name == LOSS_MASK and column.values.ndim == 1 and column.values.dtype.kind in "biuf"
        return {name: learned_lengths(column)} if numeric else {}
    numeric = name in REPORTED and column.ndim == 1 and column.dtype.kind in "biuf"
    return {name: column} if numeric else {}


class Chunk(Protocol):
    """Piece of rows, somewhere."""

    def metadata(self) -> Metadata:
        """Return what is known of the rows, waiting until they have been made."""

    def get(self) -> Batch:
        """Return the rows themselves, here, waiting until they have been made."""


_stay_here = ContextVar("rows_stay_here", default=False)


@contextmanager
def rows_stay_here() -> Iterator[None]:
    """Let rows that are put in the store in this block stay in this process instead: there is no cluster."""
    token = _stay_here.set(True)
    try:
        yield
    finally:
        _stay_here.reset(token)


def stay_here() -> bool:
    """Tell whether rows stay in this process."""
    return _stay_here.get()


@dataclass(frozen=True, eq=False)
class LocalChunk:
    """Chunk in this process: to test a protocol, or to hand rows to a call."""

    batch: Batch

    def metadata(self) -> Metadata:
        return Metadata.of(self.batch)

    def get(self) -> Batch:
        return self.batch


@dataclass(frozen=True, eq=False)
class Source:
    """Columns that lie together, of every row of a BatchRef.

    Attributes:
        columns: their names.
        runs: where the rows lie, in their order: (chunk, start, stop), as few runs as there can be. Where there are no
            rows, one run of none says what the columns are like, or no run, if nobody knows. A chunk may have more
            columns than these.
    """

    columns: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def chunks(self) -> tuple[Any, ...]:
        """Chunks that the runs name, each once."""
        return tuple(dict.fromkeys(chunk for chunk, _, _ in self.runs))

    @cached_property
    def _ends(self) -> list[int]:
        """Number of rows up to the end of each run."""
        return list(accumulate(stop - start for _, start, stop in self.runs))

    def those(self, names: Container[str]) -> tuple[str, ...]:
        """Return its columns among these."""
        return tuple([column for column in self.columns if column in names])

    def slice(self, start: int, stop: int) -> Source:
        """Return rows `start` to `stop`."""
        if len(self.runs) == 1:
            ((chunk, first, _),) = self.runs
            return Source(self.columns, ((chunk, first + start, first + stop),))
        if start == stop:
            return Source(self.columns, tuple((chunk, row, row) for chunk, row, _ in self.runs[:1]))
        ends = self._ends
        first = bisect_right(ends, start)
        last = bisect_left(ends, stop)
        taken = [*self.runs[first : last + 1]]
        chunk, _, end = taken[0]
        taken[0] = chunk, end - (ends[first] - start), end
        chunk, begin, end = taken[-1]
        taken[-1] = chunk, begin, end - (ends[last] - stop)
        return Source(self.columns, tuple(taken))

    def select(self, rows: np.ndarray) -> Source:
        """Return the rows of these numbers, [n] int64, from 0 up."""
        if not len(rows):
            return self.slice(0, 0)
        number = {chunk: n for n, chunk in enumerate(self.chunks)}
        runs = np.array([(number[chunk], start, stop) for chunk, start, stop in self.runs])
        ends = np.array(self._ends)
        of = np.searchsorted(ends, rows, side="right")
        chunk = runs[of, 0]
        row = runs[of, 2] - ends[of] + rows
        breaks = np.flatnonzero((row[1:] != row[:-1] + 1) | (chunk[1:] != chunk[:-1])) + 1
        first = np.append(0, breaks)
        last = np.append(breaks, len(rows)) - 1
        chunks = list(number)
        taken = zip(chunk[first].tolist(), row[first].tolist(), (row[last] + 1).tolist(), strict=True)
        return Source(self.columns, tuple((chunks[n], start, stop) for n, start, stop in taken))

    def of_each(self, value: Callable[[Any], np.ndarray]) -> np.ndarray:
        """Look up each row's value, [R], in what `value` gives for the rows of a chunk."""
        values = {chunk: np.asarray(value(chunk)) for chunk in self.chunks}
        pieces = [values[chunk][start:stop] for chunk, start, stop in self.runs]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)


def end_to_end(columns: Sequence[str], runs: Sequence[Run]) -> Source:
    """Join runs of rows to one source; those that follow one another in a chunk become one."""
    joined: list[Run] = []
    for chunk, start, stop in runs:
        if start == stop:
            continue
        if joined and joined[-1][0] is chunk and joined[-1][2] == start:
            joined[-1] = chunk, joined[-1][1], stop
        else:
            joined.append((chunk, start, stop))
    return Source(tuple(columns), tuple(joined or runs[:1]))
