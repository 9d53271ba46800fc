"""RankTimes: how much longer the slowest rank of a pool takes than the others. Pure: who asks brings the times."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median_low


@dataclass
class RankTimes:
    """Seconds that ranks carried out calls, by pool, since somebody asked.

    What a rank waited for others to come to a meeting is none of its time. It is known of the meetings that we make
    ourselves; in those of an engine, as for a gradient, all ranks take as long as the slowest.
    """

    _seconds: dict[str, dict[int, float]] = field(default_factory=dict)

    def note(self, pool: str, rank: int, seconds: float) -> None:
        """Take in how long a rank took for a call that all ranks of its role were asked for, without its waits."""
        ranks = self._seconds.setdefault(pool, {})
        ranks[rank] = ranks.get(rank, 0.0) + seconds

    def slowest(self) -> dict[str, tuple[int, float]]:
        """Return by pool of several ranks the slowest one, and by how many seconds; forget what was taken in.

        Others are as slow as their median rank; of two medians the lower one.
        """
        pools, self._seconds = self._seconds, {}
        found = {}
        for pool, ranks in pools.items():
            if len(ranks) > 1:
                slowest = max(ranks, key=lambda rank: (ranks[rank], -rank))
                others = [seconds for rank, seconds in ranks.items() if rank != slowest]
                found[pool] = slowest, ranks[slowest] - median_low(others)
        return found
