"""BackgroundWork: calls beside those of steps, and what keeps them going while the driver waits for others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hybridflow.controller.call_record import CallRecord


class BackgroundWork:
    """Work that goes on over the ends of steps, such as generation that never stops.

    The driver has one thread; so what keeps such work going is done wherever it waits for something else.

    Attributes:
        work: is called when something may have been reported; None: there is no such work.
    """

    def __init__(self) -> None:
        self.work: Callable[[], None] | None = None
        self._made: list[CallRecord] | None = None
        self._finished: list[CallRecord] = []
        self._working = False

    @contextmanager
    def calling(self) -> Iterator[list[CallRecord]]:
        """Take all calls that are made in the block for this work; yield them."""
        before, self._made = self._made, []
        try:
            yield self._made
        finally:
            self._made = before

    def note_made(self, record: CallRecord) -> None:
        """Take note of a call."""
        if self._made is not None:
            record.background = True
            self._made.append(record)

    def note_finished(self, record: CallRecord) -> bool:
        """Take note of a call that all its ranks have reported on; tell whether it is one of these."""
        if record.background:
            self._finished.append(record)
        return record.background

    def take_finished(self) -> list[CallRecord]:
        """Return the calls that have finished since the last time."""
        finished, self._finished = self._finished, []
        return finished

    def go_on(self) -> None:
        """Do the work, unless it is what waits."""
        if self.work is None or self._working:
            return
        self._working = True
        try:
            self.work()
        finally:
            self._working = False
