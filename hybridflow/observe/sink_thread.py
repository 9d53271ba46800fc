"""The thread of a metric sink: what a sink waits for, a disk or a server, no step of the run waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from queue import Full, Queue
from threading import Event, Thread
from time import monotonic
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

SILENT_S = 60.0  # that a sink may take for one line before it is told of
MAX_WAITING = 1000  # steps and validations that a sink may be behind; what comes then is left out, and counted


class SinkThread(Generic[T]):
    """A thread on which one sink is opened, fed from a bounded queue, and closed. It ends with the process.

    A sink that raises is told of once, and nothing more reaches it.

    Args:
        name: the sink's, for what is said of it.
        make: opens the sink.
        tell: called with each thing that went wrong, in words.

    Attributes:
        failed: while what it failed; "" if it has not.
    """

    def __init__(self, name: str, make: Callable[[], T], tell: Callable[[str], None]) -> None:
        self.name = name
        self.failed = ""
        self._make = make
        self._tell = tell
        self._waiting: Queue[tuple[Callable[[T], None], str] | None] = Queue(MAX_WAITING)
        self._left_out = 0
        self._begun_s = inf  # when it was given what it is at work on
        self._opened = Event()
        self._trouble: BaseException | None = None
        self._thread = Thread(target=self._work, name=f"metric sink {name}", daemon=True)

    def open(self, wait_s: float) -> None:
        """Open the sink. Raises what that raises, and TimeoutError if it takes longer than `wait_s`."""
        self._thread.start()
        if not self._opened.wait(wait_s):
            raise TimeoutError(f"it did not open within {wait_s:g} s")
        if self._trouble is not None:
            raise self._trouble

    def give(self, act: Callable[[T], None], when: str) -> None:
        """Let the sink do something after what it was given before, and return at once."""
        if self.failed:
            return
        if monotonic() > self._begun_s + SILENT_S:
            self._tell(f"has not taken a line for {SILENT_S:g} s, and the run goes on without it; lines wait for it")
            self._begun_s = inf
        try:
            self._waiting.put_nowait((act, when))
        except Full:
            if not self._left_out:
                self._tell(f"takes no more {when}, with {MAX_WAITING} lines waiting: what comes is left out meanwhile")
            self._left_out += 1

    def end(self, act: Callable[[T], None], when: str) -> None:
        """Let the sink do this last, after all that it was given."""
        self.give(act, when)
        self.give_up()

    def give_up(self) -> None:
        """End the thread after what it was given; one whose queue is full stays until the process ends."""
        try:
            self._waiting.put_nowait(None)
        except Full:
            log.debug("metric sink %r: its thread is left to the end of the process", self.name)

    def wait(self, until: float) -> bool:
        """Wait for the thread's end until that time of `monotonic`; tell what is missing; return whether it came."""
        self._thread.join(max(0.0, until - monotonic()))
        missing = self._left_out + (self._waiting.qsize() if self._thread.is_alive() else 0)
        if self._thread.is_alive():
            self._tell(f"was not done when the run ended, and was not waited for any longer: {missing} lines wait")
        elif missing and not self.failed:
            self._tell(f"could not keep up: {missing} lines are not in it")
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            sink = self._make()
        except BaseException as error:  # what a client raises may be any, SystemExit too
            self._trouble = error
            return
        finally:
            self._opened.set()
        while (task := self._waiting.get()) is not None:
            act, when = task
            self._begun_s = monotonic()
            try:
                act(sink)
            except BaseException as error:
                self.failed = when
                self._tell(f"failed {when}, and is left out from now on: {error!r}")
                return
            self._begun_s = inf
