"""Seconds that this process has waited for other ranks to come to a meeting; light: no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Waiting:
    """Stopwatch of the meetings that this package makes itself, whose own work takes no time: sums of a few numbers.

    A rank that comes late waits for nobody, so what it took longer than others is its own.
    """

    def __init__(self) -> None:
        self._seconds = 0.0

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Count the block's seconds."""
        begun = perf_counter()
        try:
            yield
        finally:
            self._seconds += perf_counter() - begun

    def take(self) -> float:
        """Return the seconds since the last time."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


waiting = Waiting()
