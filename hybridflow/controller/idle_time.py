"""IdleTime: the seconds of a step in which no rank of a pool carried out a call. Pure: who asks brings the times."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_SPANS = 65_536  # of a pool, where nobody asks
Span = tuple[float, float]


@dataclass
class IdleTime:
    """Keeps when ranks were at work, by pool.

    Times are those of the ranks' machines, since a controller learns late of what has ended; of what is still under way
    it is told who is asked. Where the clocks of machines differ, spans of their pools move against the step by as much.
    """

    _spans: dict[str, deque[Span]] = field(default_factory=dict)

    def note(self, pool: str, began: float, seconds: float) -> None:
        """Take in that a rank of the pool carried out a call."""
        self._spans.setdefault(pool, deque(maxlen=MAX_SPANS)).append((began, began + seconds))

    def within(self, begin: float, end: float, under_way: Iterable[str] = ()) -> dict[str, float]:
        """Return by pool the seconds of a step in which no rank carried out a call, and forget what ended before it.

        Args:
            under_way: pools with a call that has not been reported: they count as at work since the last that has.
        """
        idle = {}
        for pool in [*self._spans, *(pool for pool in under_way if pool not in self._spans)]:
            spans = sorted(span for span in self._spans.get(pool, ()) if span[1] > begin)
            self._spans[pool] = deque(spans, MAX_SPANS)
            if pool in under_way:
                spans = [*spans, (max([last for _, last in spans], default=begin), end)]
            idle[pool] = max(0.0, end - begin - covered(spans, begin, end))
        return idle


def covered(spans: Iterable[Span], begin: float, end: float) -> float:
    """Return how much of the time from begin to end sorted spans cover, each moment once."""
    total = 0.0
    reached = begin
    for first, last in spans:
        total += max(0.0, min(last, end) - max(first, reached))
        reached = max(reached, last)
    return total
