"""Joining of many short runs of rows: entry by entry in numpy, where a slice and a copy a run would take far longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MANY = 16  # runs; fewer are joined one by one, whatever their lengths
SHORT = 128  # values; a slice and its copy take as long as two or three times as many that are taken by their places

Packed = tuple[np.ndarray, np.ndarray]
"""Values and offsets of a ragged column."""


@dataclass(frozen=True)
class ShortRuns:
    """R rows of several sources, in short runs.

    Attributes:
        sources: [R], of each row the number of its source; of a single one that is not looked at.
        rows: [R], its number there.
        count: of the runs.
    """

    sources: np.ndarray
    rows: np.ndarray
    count: int

    @staticmethod
    def of(sources: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> ShortRuns:
        """Return the rows of runs, given [K] each: the numbers of their sources, and their rows there."""
        counts = stops - starts
        rows = np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        return ShortRuns(np.repeat(sources, counts), rows, len(counts))

    def join(self, columns: Sequence[np.ndarray], like: np.ndarray) -> np.ndarray:
        """Join the rows of dense columns, one a source, end to end; `like` is one that has any rows."""
        return _taken(columns, self.sources, self.rows, like)

    def join_ragged(self, columns: Sequence[Packed], like: np.ndarray) -> Packed | None:
        """Join the rows of ragged columns, one a source, end to end; None if the runs are not short on average.

        Args:
            like: values of the dtype and trailing shape that all have which have any.
        """
        given = [offsets for _, offsets in columns]
        firsts = _taken(given, self.sources, self.rows, given[0])
        lengths = _taken(given, self.sources, self.rows + 1, given[0]) - firsts
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        if offsets[-1] > SHORT * self.count:
            return None
        places = np.repeat(firsts - offsets[:-1], lengths) + np.arange(offsets[-1])
        sources = np.repeat(self.sources, lengths) if len(columns) > 1 else self.sources
        return _taken([values for values, _ in columns], sources, places, like), offsets


def _taken(columns: Sequence[np.ndarray], source: np.ndarray, places: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return the entries at `places` of the columns that `source` says; of a single one that is not looked at."""
    if len(columns) == 1:
        return np.asarray(columns[0][places])
    taken = np.empty((len(places), *like.shape[1:]), dtype=like.dtype)
    for number, column in enumerate(columns):
        own = np.flatnonzero(source == number)
        if len(own):  # a column without any values may have another shape
            taken[own] = column[places[own]]
    return taken
