"""LiveRollouts: the driver's side of rows that are sampled over many short calls, beside whatever else is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridflow.algorithms.schedule import Reported, StepRecorder
from hybridflow.batch import BatchRef
from hybridflow.batch.joining import concat
from hybridflow.scheduling.lent_slots import freest

ENGINE_STEPS = 8  # of a call: few, as rows are begun and weights synced between two; many, as each costs a millisecond
CALLS_AHEAD = 2  # so that the ranks have the next one when they are done with one
NUMBER = "rollout_id"


@dataclass(frozen=True)
class Ordered:
    """Rows that are to be begun, and how they are sampled.

    Attributes:
        options: `step`, and what changes the section `rollout`.
    """

    rows: BatchRef
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Advance:
    """Call under way: the rows that it will have finished."""

    rows: BatchRef
    records: Sequence[Reported]

    @property
    def reported(self) -> bool:
        """Tell whether all ranks have."""
        return not any(record.missing for record in self.records)


class GenerationPool:
    """Calls on one group that generates: each begins the rows that wait for it, and lets all under way go on.

    Args:
        group: whose ranks have `advance_rollouts`.
        ahead: how many calls of it are made before the first has been reported.

    Attributes:
        waiting: rows that its next calls begin.
        under_way: numbers of the rows that it has and that are wanted.
    """

    def __init__(self, group: Any, steps: StepRecorder, ahead: int = CALLS_AHEAD) -> None:
        self.group = group
        self.waiting: deque[Ordered] = deque()
        self.under_way: set[int] = set()
        self.calls: deque[Advance] = deque()
        self._ahead = ahead
        self._steps = steps
        self._stopped: list[int] = []

    @property
    def rows(self) -> int:
        """Return how many rows the ranks have, also those that they have not been told to stop."""
        return len(self.under_way) + len(self._stopped)

    @property
    def load(self) -> int:
        """Return how many rows are its own and wanted, begun or not."""
        return len(self.under_way) + sum(len(ordered.rows) for ordered in self.waiting)

    def stop(self, numbers: Sequence[int]) -> None:
        """End those of these rows that it has with the next call."""
        own = [number for number in numbers if number in self.under_way]
        self._stopped += own
        self.under_way.difference_update(own)

    def advance(self, *, begins: bool) -> None:
        """Make the next calls, if there is anything for the ranks to do; `begins`: with the rows that wait."""
        while len(self.calls) < self._ahead and (self.rows or (self.waiting and begins)):
            self._call(begins=begins)

    def _call(self, *, begins: bool) -> None:
        """Make one call, with all rows to be begun that are sampled alike."""
        alike: list[BatchRef] = []
        options = self.waiting[0].options if self.waiting and begins else {}
        while begins and self.waiting and self.waiting[0].options == options:
            alike.append(self.waiting.popleft().rows)
        rows = concat(alike) if alike else None
        if rows is not None:
            self.under_way.update(rows.driver_columns[NUMBER].tolist())
        step = options.get("step", 0)
        changes = {name: value for name, value in options.items() if name != "step"}
        stopped, self._stopped = self._stopped, []
        with self._steps.background() as records:
            given = self.group.advance_rollouts(
                rows, engine_steps=ENGINE_STEPS, stop=stopped, step=step, sampling=changes
            )
        self.calls.append(Advance(given, records))


class LiveRollouts:
    """Rows under way on the ranks that generate.

    A row is begun with the next call, goes on from call to call, and is finished in one of them. All that is called on
    these ranks between two calls finds their engines at rest between two tokens.

    Args:
        group: of the role `rollout`.
        lent: of the actor, if its slots are lent: prompts that are begun while they are go to the freer pool, and rows
            on lent slots rest while the learner has these.

    Attributes:
        holds: no rows are begun; those under way go on.
    """

    def __init__(self, group: Any, steps: StepRecorder, lent: Any = None) -> None:
        self._own = GenerationPool(group, steps)
        # One call ahead, as a learner that is to work waits for those that were made.
        self._lent = None if lent is None else GenerationPool(lent, steps, ahead=1)
        self._pools = [pool for pool in (self._own, self._lent) if pool is not None]
        self._steps = steps
        self._ordered: deque[Ordered] = deque()
        self._finished: dict[int, tuple[BatchRef, int]] = {}
        self._next = 0
        self._is_lent = False
        self.holds = False

    @property
    def under_way(self) -> int:
        """Return how many rows the ranks have, also those that they have not been told to stop."""
        return sum(pool.rows for pool in self._pools)

    @property
    def calls(self) -> int:
        """Return how many calls have not been taken in."""
        return sum(len(pool.calls) for pool in self._pools)

    def lend(self) -> None:
        """Let the lent slots generate from now on, if there are any: the learner waits."""
        self._is_lent = self._lent is not None  # it may have been before

    def give_back(self) -> None:
        """Let the learner have its slots: rows on them rest, at the end of the call that they are in."""
        if self._lent is None or not self._is_lent:
            return
        self._is_lent = False
        self._ordered.extend(self._lent.waiting)
        self._lent.waiting.clear()
        with self._steps.background():
            self._lent.group.rest_rollouts()

    def order(self, rows: BatchRef, options: Mapping[str, Any]) -> range:
        """Begin rows, which have their `stream_id`, with the next call; return their numbers."""
        numbers = range(self._next, self._next + len(rows))
        self._next = numbers.stop
        self._ordered.append(Ordered(rows.for_call(**{NUMBER: np.array(numbers, dtype=np.int64)}), options))
        return numbers

    def stop(self, numbers: Sequence[int]) -> None:
        """End rows that are under way with the next call. What they gave is not asked for."""
        for pool in self._pools:
            pool.stop(numbers)
        self.forget(numbers)

    def receive(self) -> list[int]:
        """Take in the calls that have been reported; return the numbers of the rows that finished."""
        finished = []
        for pool in self._pools:
            while pool.calls and pool.calls[0].reported:
                rows = pool.calls.popleft().rows
                for place, number in enumerate(rows.numbers(NUMBER).tolist() if len(rows) else ()):
                    if number in pool.under_way:
                        pool.under_way.remove(number)
                        self._finished[number] = rows, place
                        finished.append(number)
        return finished

    def advance(self) -> None:
        """Make the next calls, if there is anything for the ranks to do."""
        pools = self._pools if self._is_lent else [self._own]
        while self._ordered and not self.holds:  # it is not known yet which pool is free when they begin
            ordered = self._ordered.popleft()
            self._freest(pools, len(ordered.rows)).waiting.append(ordered)
        for pool in pools:
            pool.advance(begins=not self.holds)

    @staticmethod
    def _freest(pools: Sequence[GenerationPool], rows: int) -> GenerationPool:
        """Return the pool to begin rows on: together, for copies of a prompt share what is computed of it."""
        if len(pools) == 1:
            return pools[0]
        return pools[freest(rows, [pool.load for pool in pools], [pool.group.layout.replicas for pool in pools])]

    def has(self, number: int) -> bool:
        """Tell whether a row has finished."""
        return number in self._finished

    def rows(self, numbers: Sequence[int]) -> BatchRef:
        """Return finished rows in this order, as `generate_sequences` gives them; they are forgotten here."""
        found = [self._finished.pop(number) for number in numbers]
        refs = list(dict.fromkeys(ref for ref, _ in found))
        first = dict(zip(refs, np.cumsum([0, *map(len, refs)]).tolist(), strict=False))
        joined = concat(refs).select([first[ref] + place for ref, place in found])
        return joined.select_columns(name for name in joined.columns if name != NUMBER)

    def forget(self, numbers: Iterable[int]) -> None:
        """Let go of finished rows."""
        for number in numbers:
            self._finished.pop(number, None)
