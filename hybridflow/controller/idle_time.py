"""IdleTime: the seconds of a step in which no rank of a pool carried out a call. Pure: who asks brings the times."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

MAX_SPANS = 65_536  # of a pool, where nobody asks
Span = tuple[float, float]


@dataclass
class IdleTime:
    """Keeps when ranks were at work, by pool.

    Times are those of the ranks' machines, since a controller learns late of what has ended. Where the clocks of
    machines differ, spans of their pools move against the step by as much.

    A rank carries out its calls one after the other. So one that has not reported began no earlier than the rank's last
    report ended: from then on it is not known yet whether the rank works. It counts as idle in no step until it is, and
    then in the step that asks. What steps say adds up to what was.
    """

    _spans: dict[str, deque[Span]] = field(default_factory=dict)
    _reported_until: dict[tuple[str, int], float] = field(default_factory=dict)
    _open: dict[str, list[Span]] = field(default_factory=dict)  # times of steps of which it is not known yet

    def note(self, pool: str, rank: int, began: float, seconds: float) -> None:
        """Take in that a rank of the pool carried out a call."""
        self._spans.setdefault(pool, deque(maxlen=MAX_SPANS)).append((began, began + seconds))
        self._reported_until[pool, rank] = max(began + seconds, self._reported_until.get((pool, rank), -inf))

    def within(self, begin: float, end: float, under_way: Iterable[tuple[str, int]] = ()) -> dict[str, float]:
        """Return by pool the seconds of a step, and of those before, of which it is now known that no rank worked.

        Args:
            under_way: pools and ranks with a call that has not been reported.
        """
        known_until: dict[str, float] = {}
        for pool, rank in under_way:
            last = self._reported_until.get((pool, rank), -inf)
            known_until[pool] = min(last, known_until.get(pool, inf))
        pools = [*self._spans, *(pool for pool in known_until if pool not in self._spans)]
        return {pool: self._settle(pool, (begin, end), known_until.get(pool, inf)) for pool in pools}

    def _settle(self, pool: str, step: Span, until: float) -> float:
        """Return the idle seconds of a pool that are known up to a time; forget what ended before what is not."""
        times = [*self._open.get(pool, ()), step]
        self._open[pool] = [(max(first, until), last) for first, last in times if last > until]
        spans = sorted(span for span in self._spans.get(pool, ()) if span[1] > times[0][0])
        self._spans[pool] = deque(spans, MAX_SPANS)
        known = [(first, min(last, until)) for first, last in times if first < until]
        return sum(max(0.0, last - first - covered(spans, first, last)) for first, last in known)


def covered(spans: Iterable[Span], begin: float, end: float) -> float:
    """Return how much of the time from begin to end sorted spans cover, each moment once."""
    total = 0.0
    reached = begin
    for first, last in spans:
        total += max(0.0, min(last, end) - max(first, reached))
        reached = max(reached, last)
    return total
