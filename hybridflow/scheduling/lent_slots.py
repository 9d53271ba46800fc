"""Which pool generates a row where the learner's slots are lent. Pure.

A lent slot generates while the learner waits, and rests while it works, rows under way in it too. That changes nothing
of what a `Scheduler` decides: it counts prompts wherever their rows are, so at most (S + 1)·P are in flight with lent
slots as without. Nor can a resting row stop a run: once the learner waits for it, it does not rest.
"""

from __future__ import annotations

from collections.abc import Sequence


def freest(rows: int, under_way: Sequence[int], replicas: Sequence[int]) -> int:
    """Return the number of the pool that a prompt's rows, which stay together, make the least busy by their coming.

    Args:
        under_way, replicas: as those of `spread`.
    """
    loads = [(had + rows) / count for had, count in zip(under_way, replicas, strict=True)]
    return loads.index(min(loads))


def spread(rows: int, under_way: Sequence[int], replicas: Sequence[int]) -> list[int]:
    """Return how many of some further rows each pool takes, so that its replicas have as even a share as they can.

    Args:
        under_way: rows of each pool that have not finished.
        replicas: of each pool that it generates with; of two that have as much to do, the first takes one row more.
    """
    taken = [0] * len(replicas)
    for _ in range(rows):
        loads = [(had + own) / count for had, own, count in zip(under_way, taken, replicas, strict=True)]
        taken[loads.index(min(loads))] += 1
    return taken
