"""IdleTime: the seconds of a step in which no rank of a pool carried out a call. Pure: who asks brings the times."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from operator import itemgetter
from types import MappingProxyType

MAX_SPANS = 65_536  # of a pool, where nobody asks
Span = tuple[float, float]


@dataclass
class IdleTime:
    """Keeps when ranks were at work, by pool.

    Times are those of the ranks' machines, since a controller learns late of what has ended. Where the clocks of
    machines differ, spans of their pools move against the step by as much.

    A rank carries out its calls one after the other, in the order in which they were made. So one that has not been
    reported began when those made before it had ended: from then on it is not known yet whether the rank works, also
    where a later call has been reported. It counts as idle in no step until it is known, and then in the step that
    asks. What steps say adds up to what was.
    """

    _spans: dict[str, deque[Span]] = field(default_factory=dict)
    _ended: dict[tuple[str, int], deque[tuple[int, float]]] = field(default_factory=dict)  # a rank's calls, and when
    _open: dict[str, list[Span]] = field(default_factory=dict)  # times of steps of which it is not known yet

    def note(self, pool: str, rank: int, number: int, began: float, seconds: float) -> None:
        """Take in that a rank of the pool carried out a call, whose number is larger than those of calls before it."""
        self._spans.setdefault(pool, deque(maxlen=MAX_SPANS)).append((began, began + seconds))
        self._ended.setdefault((pool, rank), deque(maxlen=MAX_SPANS)).append((number, began + seconds))

    def within(
        self, begin: float, end: float, under_way: Mapping[tuple[str, int], int] = MappingProxyType({})
    ) -> dict[str, float]:
        """Return by pool the seconds of a step, and of those before, of which it is now known that no rank worked.

        Args:
            under_way: by pool and rank, the number of its first call that has not been reported.
        """
        known_until: dict[str, float] = {}
        for (pool, rank), first in under_way.items():
            last = self._last_end(pool, rank, first)
            known_until[pool] = min(last, known_until.get(pool, inf))
        for pool, rank in [key for key in self._ended if key not in under_way]:
            self._last_end(pool, rank, inf)
        pools = [*self._spans, *(pool for pool in known_until if pool not in self._spans)]
        return {pool: self._settle(pool, (begin, end), known_until.get(pool, inf)) for pool in pools}

    def _last_end(self, pool: str, rank: int, first: float) -> float:
        """Return when the last call of a rank before the first that has not been reported ended; forget the others."""
        ended = self._ended.get((pool, rank), ())
        before = [call for call in ended if call[0] < first]
        if not before:
            return -inf
        last = max(before, key=itemgetter(1))
        self._ended[pool, rank] = deque([last, *(call for call in ended if call[0] > first)], MAX_SPANS)
        return last[1]

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
