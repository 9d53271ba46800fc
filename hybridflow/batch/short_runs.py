"""Joining of many short runs of rows: entry by entry in numpy, where a slice and a copy a run would take far longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MANY = 16  # runs; fewer are joined one by one, whatever their lengths
SHORT = 128  # values; a slice and its copy take as long as two or three times as many that are taken by their places

Packed = tuple[np.ndarray, np.ndarray]
"""Values and offsets of a ragged column."""


@dataclass(frozen=True)
class Runs:
    """K runs of rows of several sources, R rows in all.

    Attributes:
        sources: [K], of each run the number of its source.
        starts, stops: [K], its rows there.
    """

    sources: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    @cached_property
    def source_of_row(self) -> np.ndarray:
        """[R]"""
        return np.repeat(self.sources, self.stops - self.starts)

    @cached_property
    def rows(self) -> np.ndarray:
        """Number of each row in its source, [R]."""
        counts = self.stops - self.starts
        return np.repeat(self.starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())

    def beyond(self, sizes: Sequence[int]) -> np.ndarray:
        """Return the numbers of runs with rows that their sources, of these sizes, do not have."""
        fits = (self.starts >= 0) & (self.starts <= self.stops) & (self.stops <= np.array(sizes)[self.sources])
        return np.flatnonzero(~fits)

    def join(self, columns: Sequence[np.ndarray], like: np.ndarray) -> np.ndarray:
        """Join the runs' rows of dense columns, one a source, end to end; `like` is one that has any rows."""
        return _taken(columns, self.source_of_row, self.rows, like)

    def join_ragged(self, columns: Sequence[Packed], like: np.ndarray) -> Packed | None:
        """Join the runs' rows of ragged columns, one a source; None if the runs are not short on average.

        Args:
            like: values of the dtype and trailing shape that all have which have any.
        """
        firsts = np.empty(len(self.rows), dtype=np.int64)
        offsets = np.zeros(len(self.rows) + 1, dtype=np.int64)
        for number, (_, given) in enumerate(columns):
            own = self.source_of_row == number if len(columns) > 1 else slice(None)
            firsts[own] = given[self.rows[own]]
            offsets[1:][own] = given[self.rows[own] + 1]
        offsets[1:] -= firsts
        np.cumsum(offsets, out=offsets)
        if offsets[-1] > SHORT * len(self.starts):
            return None
        lengths = offsets[1:] - offsets[:-1]
        places = np.repeat(firsts - offsets[:-1], lengths) + np.arange(offsets[-1])
        of_value = np.repeat(self.source_of_row, lengths) if len(columns) > 1 else self.sources
        return _taken([values for values, _ in columns], of_value, places, like), offsets


def _taken(columns: Sequence[np.ndarray], source: np.ndarray, places: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return the entries at `places` of the columns that `source` says; of a single one that is not looked at."""
    if len(columns) == 1:
        return np.asarray(columns[0][places])
    taken = np.empty((len(places), *like.shape[1:]), dtype=like.dtype)
    for number, column in enumerate(columns):
        own = source == number
        taken[own] = column[places[own]]
    return taken
