"""One reading of a whole split before a run, that finds the rows that are too long and those that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hybridflow.batch import Batch
from hybridflow.errors import DataError
from hybridflow.tasks.reading_progress import ReadingProgress

PORTION = 1024  # rows that are read together

Read = Callable[[np.ndarray], Batch]
"""Gives the rows of these numbers. Raises DataError for one that cannot be used."""


@dataclass(frozen=True)
class Survey:
    """Facts of every row of a split.

    Attributes:
        long: [R] bool, the rows that are too long.
        malformed: why a row cannot be used, by its number.
    """

    long: np.ndarray
    malformed: Mapping[int, DataError]

    def left(self, *, drop: bool) -> np.ndarray:
        """Return the numbers of rows that can be used, [n]; `drop`: without those that are too long."""
        usable = ~self.long if drop else np.ones(len(self.long), dtype=bool)
        usable[list(self.malformed)] = False
        return np.flatnonzero(usable)

    def reasons(self) -> Iterator[tuple[str, int, DataError]]:
        """Yield each reason for which rows cannot be used, their number, and the first one's error."""
        by_reason: dict[str, list[DataError]] = {}
        for error in self.malformed.values():
            by_reason.setdefault(error.reason, []).append(error)
        for reason, errors in by_reason.items():
            yield reason, len(errors), errors[0]


def survey(read: Read, rows: int, is_long: Callable[[Batch], np.ndarray], *, skip: bool) -> Survey:
    """Read all rows of a split.

    Args:
        skip: go on after a row that cannot be used. Otherwise its DataError is raised.
    """
    long = np.zeros(rows, dtype=bool)
    malformed: dict[int, DataError] = {}
    progress = ReadingProgress("reading a split whole", rows)
    for start in range(0, rows, PORTION):
        progress.at(start)
        numbers = np.arange(start, min(start + PORTION, rows))
        for some, batch in _sound(read, numbers, malformed) if skip else [(numbers, read(numbers))]:
            long[some] = is_long(batch)
    return Survey(long, malformed)


def _sound(read: Read, numbers: np.ndarray, malformed: dict[int, DataError]) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield the rows that can be read; halve what cannot be read as a whole until the row that is to blame is alone."""
    try:
        batch = read(numbers)
    except DataError as error:
        if len(numbers) == 1:
            malformed[int(numbers[0])] = error
            return
        half = len(numbers) // 2
        yield from _sound(read, numbers[:half], malformed)
        yield from _sound(read, numbers[half:], malformed)
    else:
        yield numbers, batch
