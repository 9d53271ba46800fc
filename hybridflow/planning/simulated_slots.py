"""SimulatedSlots: rows that advance a token at a time, all at one pace, as decoding's do.

What finds no slot waits in the engine's queue.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Sequence
from math import inf

from hybridflow.planning.estimates import Span
from hybridflow.scheduling import RowFinished


class SimulatedSlots:
    """Advances rows on one device, which are in slots or in the queue for them.

    Args:
        slots: rows that advance at once.
        pace: the seconds of a token, by the rows in slots.
        lengths: tokens by prompt and row.
    """

    def __init__(self, slots: int, pace: Callable[[int], float], lengths: Sequence[Sequence[float]]) -> None:
        self.slots = slots
        self._pace = pace
        self._lengths = lengths
        self._advanced = 0.0  # tokens that a row has gained which has been in a slot all the time
        self._rows: dict[tuple[int, int], int] = {}  # in slots, with their attempts
        self._ends: list[tuple[float, int, int, int]] = []  # by `_advanced`; some of rows that were stopped
        self._queue: deque[tuple[int, int, int]] = deque()

    @property
    def load(self) -> int:
        """Return how many rows it has."""
        return len(self._rows) + len(self._queue)

    @property
    def at_work(self) -> int:
        """Return how many rows are in slots."""
        return len(self._rows)

    def order(self, prompt: int, rows: Sequence[tuple[int, int]]) -> None:
        """Queue rows of a prompt, with their attempts."""
        self._queue += [(prompt, row, attempt) for row, attempt in rows]

    def fill(self) -> None:
        """Put rows of the queue into free slots."""
        while self._queue and len(self._rows) < self.slots:
            prompt, row, attempt = self._queue.popleft()
            self._rows[prompt, row] = attempt
            heapq.heappush(self._ends, (self._advanced + self._lengths[prompt][row], prompt, row, attempt))

    def stop(self, prompts: Collection[int]) -> None:
        """End the rows of these prompts."""
        for key in [key for key in self._rows if key[0] in prompts]:
            del self._rows[key]
        self._queue = deque(row for row in self._queue if row[0] not in prompts)

    def next_end(self) -> float:
        """Return the seconds of work until a row finishes, if nothing comes between; inf: none is in a slot."""
        while self._ends and self._rows.get(self._ends[0][1:3]) != self._ends[0][3]:
            heapq.heappop(self._ends)
        return (self._ends[0][0] - self._advanced) * self._pace(len(self._rows)) if self._ends else inf

    def advance(self, worked: float) -> float:
        """Let the rows in slots gain tokens in some seconds of work; return how many all of them gained."""
        if not self._rows:
            return 0.0
        gained = worked / self._pace(len(self._rows))
        self._advanced += gained
        return len(self._rows) * gained

    def end_row(self) -> RowFinished:
        """Take out the row that finishes first."""
        self._advanced, prompt, row, attempt = heapq.heappop(self._ends)
        del self._rows[prompt, row]
        return RowFinished(prompt, row, attempt)


class GenerationSpans:
    """Notes the spans in which slots generate.

    Args:
        spans: that they are added to, once they have ended.
        call: the role and the method that they are of.
    """

    def __init__(self, spans: list[Span], call: tuple[str, str]) -> None:
        self._spans = spans
        self._call = call
        self._since: dict[bool, float] = {}

    def note(self, lent: bool, pool: str, generates: bool, now: float) -> None:
        """Note whether slots of a pool, its own or those that it lends, generate from now on."""
        if generates:
            self._since.setdefault(lent, now)
        elif lent in self._since:
            self._spans.append(Span(pool, *self._call, self._since.pop(lent), now))
