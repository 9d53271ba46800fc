"""SimulatedPools: pools of devices that carry out jobs, each pool in the order in which it was given them.

As ranks do: a pool begins with its next job when it is done with the one before and that job's inputs are there; those
behind it wait, even if theirs are. Where ranks share cores, all that is at work at once goes slower by what is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf

from hybridflow.planning.estimates import Span

DRIVER = "driver"
"""The controller, which sends calls: those first whose rows are there, whatever their order."""
DONE_S = 1e-12  # that a job which is done may have left, by rounding


@dataclass(frozen=True)
class Job:
    """Call, or a part of one, on a pool.

    Attributes:
        seconds: that it takes if nothing else is at work.
        ranks: of its pool that are at work, on average.
        after: the jobs that it waits for, by their places among those that are given together.
        reads: others that it waits for, by their places among those that its rows were sampled with.
        finishes: its rows have not finished before it is done; what scores them may still be at it afterwards.
    """

    pool: str
    role: str
    method: str
    seconds: float
    ranks: float = 1.0
    after: tuple[int, ...] = ()
    reads: tuple[int, ...] = ()
    finishes: bool = True


class SimulatedPools:
    """Pools with what they have been given.

    Attributes:
        held: pools that rest.
        spans: of jobs that are done, in the order in which they ended.
    """

    def __init__(self) -> None:
        self.held: Collection[str] = ()
        self.spans: list[Span] = []
        self._jobs: list[Job] = []
        self._after: list[tuple[int, ...]] = []
        self._left: list[float] = []
        self._begun: list[float] = []
        self._done: list[bool] = []
        self._queues: dict[str, deque[int]] = {}

    def give(self, jobs: Sequence[Job], sampled: Sequence[int] = ()) -> range:
        """Queue jobs that may wait for one another; return their numbers.

        Args:
            sampled: the numbers of the jobs that their rows were sampled with.
        """
        numbers = range(len(self._jobs), len(self._jobs) + len(jobs))
        for number, job in zip(numbers, jobs, strict=True):
            self._jobs.append(job)
            own = (numbers[place] for place in job.after)
            self._after.append((*own, *(sampled[place] for place in job.reads)))
            self._left.append(job.seconds)
            self._begun.append(inf)
            self._done.append(False)
            self._queues.setdefault(job.pool, deque()).append(number)
        return numbers

    def is_busy(self, pool: str) -> bool:
        """Tell whether a pool has jobs, begun or not."""
        return bool(self._queues.get(pool))

    def at_work(self) -> list[int]:
        """Return the numbers of the jobs that are being carried out."""
        heads = [queue[0] for pool, queue in self._queues.items() if queue and pool not in self.held and pool != DRIVER]
        sent = next(filter(self._is_ready, self._queues.get(DRIVER, ())), None)
        return [*filter(self._is_ready, heads), *(() if sent is None else (sent,))]

    def _is_ready(self, number: int) -> bool:
        return all(self._done[before] for before in self._after[number])

    def ranks(self, numbers: Sequence[int]) -> float:
        """Return how many ranks these jobs keep at work."""
        return sum(self._jobs[number].ranks for number in numbers)

    def next_end(self, numbers: Sequence[int]) -> float:
        """Return the seconds of work until the first of these jobs is done; inf: there are none."""
        return min((self._left[number] for number in numbers), default=inf)

    def advance(self, numbers: Sequence[int], now: float, worked: float) -> None:
        """Let jobs get some seconds of work, beginning now."""
        for number in numbers:
            self._begun[number] = min(self._begun[number], now)
            self._left[number] -= worked

    def end(self, numbers: Sequence[int], now: float) -> int | None:
        """Take out the first of these jobs that is done; return its number. None: none is."""
        for number in numbers:
            if self._left[number] <= DONE_S:
                job = self._jobs[number]
                self._done[number] = True
                self._queues[job.pool].remove(number)  # the first, but for the driver's
                self.spans.append(Span(job.pool, job.role, job.method, self._begun[number], now))
                return number
        return None
