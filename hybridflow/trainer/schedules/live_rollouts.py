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


class LiveRollouts:
    """Rows under way on the ranks that generate.

    A row is begun with the next call, goes on from call to call, and is finished in one of them. All that is called on
    these ranks between two calls finds their engines at rest between two tokens.

    Args:
        group: of the role `rollout`.

    Attributes:
        holds: no rows are begun; those under way go on.
    """

    def __init__(self, group: Any, steps: StepRecorder) -> None:
        self._group = group
        self._steps = steps
        self._ordered: deque[Ordered] = deque()
        self._stopped: list[int] = []
        self._calls: deque[Advance] = deque()
        self._under_way: set[int] = set()
        self._finished: dict[int, tuple[BatchRef, int]] = {}
        self._next = 0
        self.holds = False

    @property
    def under_way(self) -> int:
        """Return how many rows the ranks have, also those that they have not been told to stop."""
        return len(self._under_way) + len(self._stopped)

    @property
    def calls(self) -> int:
        """Return how many calls have not been taken in."""
        return len(self._calls)

    def order(self, rows: BatchRef, options: Mapping[str, Any]) -> range:
        """Begin rows, which have their `stream_id`, with the next call; return their numbers."""
        numbers = range(self._next, self._next + len(rows))
        self._next = numbers.stop
        self._ordered.append(Ordered(rows.for_call(**{NUMBER: np.array(numbers, dtype=np.int64)}), options))
        return numbers

    def stop(self, numbers: Sequence[int]) -> None:
        """End rows that are under way with the next call. What they gave is not asked for."""
        self._stopped += numbers
        self._under_way.difference_update(numbers)
        self.forget(numbers)

    def receive(self) -> list[int]:
        """Take in the calls that have been reported; return the numbers of the rows that finished."""
        finished = []
        while self._calls and self._calls[0].reported:
            rows = self._calls.popleft().rows
            for place, number in enumerate(rows.numbers(NUMBER).tolist() if len(rows) else ()):
                if number in self._under_way:
                    self._under_way.remove(number)
                    self._finished[number] = rows, place
                    finished.append(number)
        return finished

    def advance(self) -> None:
        """Make the next calls, if there is anything for the ranks to do."""
        while len(self._calls) < CALLS_AHEAD and (self.under_way or (self._ordered and not self.holds)):
            self._call()

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

    def _call(self) -> None:
        """Make one call, with all rows to be begun that are sampled alike."""
        alike: list[BatchRef] = []
        begins = bool(self._ordered) and not self.holds
        options = self._ordered[0].options if begins else {}
        while begins and self._ordered and self._ordered[0].options == options:
            alike.append(self._ordered.popleft().rows)
        rows = concat(alike) if alike else None
        if rows is not None:
            self._under_way.update(rows.driver_columns[NUMBER].tolist())
        step = options.get("step", 0)
        changes = {name: value for name, value in options.items() if name != "step"}
        stopped, self._stopped = self._stopped, []
        with self._steps.background() as records:
            given = self._group.advance_rollouts(
                rows, engine_steps=ENGINE_STEPS, stop=stopped, step=step, sampling=changes
            )
        self._calls.append(Advance(given, records))
