"""MetricWindow: the metrics of a run's first steps and of its newest ones, which rules of alarms look at."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, takewhile
from statistics import median
from typing import Any

FIRST = 24  # steps that are kept from a metric's beginning: a rule compares with those of its choice
NEWEST = 60  # steps that are kept from its end
EVERY = 2  # a metric that fewer than every second of the newest steps have says nothing of now
VALIDATION = "validation/"
ROWS = "rollout/rows"

Value = tuple[int, float]


class MetricWindow:
    """Values of each metric, by step: its first ones and its newest ones, however long the run is.

    A value that was not finite is NaN, whether it was NaN, infinite or the null that `metrics.jsonl` has in its place.
    What is no number at all, as in a file that was edited, is not there.

    Attributes:
        steps: numbers of the newest steps; empty: there was none.
        names: of the metrics that the newest step has, in alphabetical order.
    """

    def __init__(self) -> None:
        self.steps: deque[int] = deque(maxlen=NEWEST)
        self.names: Sequence[str] = ()
        self._first: dict[str, list[Value]] = {}
        self._newest: dict[str, deque[Value]] = {}

    def take(self, record: Mapping[str, Any]) -> bool:
        """Take in the metrics of a step, which `step` numbers; tell whether they are that.

        Those of a validation are not. Steps that a run went back over count as what they were the last time.
        """
        step = record.get("step")
        if isinstance(step, bool) or not isinstance(step, int) or any(name.startswith(VALIDATION) for name in record):
            return False
        if self.steps and step <= self.steps[-1]:
            self._go_back_to(step)
        self.steps.append(step)
        known = ((name, _as_number(value)) for name, value in record.items() if name != "step")
        numbers = {name: number for name, number in known if number is not None}
        self.names = sorted(numbers)
        for name in self.names:
            entry = (step, numbers[name])
            first = self._first.setdefault(name, [])
            if len(first) < FIRST:
                first.append(entry)
            self._newest.setdefault(name, deque(maxlen=NEWEST)).append(entry)
        return True

    def _go_back_to(self, step: int) -> None:
        """Forget that step and those after it."""
        for values in (*self._first.values(), *self._newest.values()):
            while values and values[-1][0] >= step:
                values.pop()
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()

    def newest(self, name: str, count: int) -> list[float] | None:
        """Return a metric's values in the newest `count` steps that have it.

        Where rows of a step were sampled in others, as an asynchronous schedule does, some steps have no metrics of
        sampling. None: so many of the newest `EVERY` · count steps do not have it, or it is not finite in one.
        """
        together = self.together((name,), count)
        return None if together is None else [value for (value,) in together]

    def together(self, names: Sequence[str], count: int) -> list[tuple[float, ...]] | None:
        """Return the values of several metrics in the newest `count` steps that have all of them; None as `newest`."""
        kept = [self._newest.get(name, ()) for name in names]
        if not 0 < count <= min(len(self.steps), *map(len, kept)):
            return None
        oldest = self.steps[-min(EVERY * count, len(self.steps))]
        by_step = [dict(_since(values, oldest)) for values in kept]
        steps = sorted(set(by_step[0]).intersection(*by_step[1:]))[-count:]
        found = [tuple(values[step] for values in by_step) for step in steps]
        return found if len(found) == count and all(map(math.isfinite, chain(*found))) else None

    def all_newest(self, name: str) -> list[float]:
        """Return a metric's finite values of all steps that are kept."""
        return [value for _, value in self._newest.get(name, ()) if math.isfinite(value)]

    def newest_with(self, rows: int, least: int) -> int | None:
        """Return how many of the newest steps, `least` or more, have so many rows together; None if all have fewer.

        Where nobody counts rows these are `least`.
        """
        return self._with_rows(self.newest, rows, range(least, len(self.steps) + 1))

    def first_with(self, rows: int, least: int) -> int | None:
        """Return how many of the first steps, `least` or more, have so many rows; as `newest_with`."""
        return self._with_rows(self.first, rows, range(least, FIRST + 1))

    def _with_rows(self, values_of: Callable[[str, int], list[float] | None], rows: int, sizes: range) -> int | None:
        if ROWS not in self._newest:
            return sizes.start
        for steps in sizes:
            counts = values_of(ROWS, steps)
            if counts is None:
                return None
            if sum(counts) >= rows:
                return steps
        return None

    def now(self, name: str) -> float | None:
        """Return a metric's value in the newest step, NaN if it was not finite; None if it was not measured."""
        values = self._newest.get(name)
        return values[-1][1] if values and values[-1][0] == self.steps[-1] else None

    def median(self, name: str, count: int) -> float | None:
        """Return the median of `newest`; None as there."""
        values = self.newest(name, count)
        return None if values is None else median(values)

    def first(self, name: str, count: int, skip: int = 0) -> list[float] | None:
        """Return a metric's first finite values, after `skip` of them; None if there are fewer."""
        values = [value for _, value in self._first.get(name, ()) if math.isfinite(value)][skip : skip + count]
        return values if len(values) == count else None

    def first_median(self, name: str, count: int, skip: int = 0) -> float | None:
        """Return the median of `first`; None as there."""
        values = self.first(name, count, skip)
        return None if values is None else median(values)

    def first_step(self, name: str, skip: int = 0) -> int:
        """Return the step of a metric's first value, after `skip` of them."""
        return self._first[name][skip][0]

    def last_step(self, count: int) -> int:
        """Return the number of the first of the newest steps."""
        return list(self.steps)[-count:][0]


def _since(values: Sequence[Value], oldest: int) -> Iterator[Value]:
    """Go through the newest of a metric's values, as far back as a step."""
    return takewhile(lambda value: value[0] >= oldest, reversed(values))


def _as_number(value: object) -> float | None:
    """Return a metric's value; None for what is none. An infinite one is NaN, as a null is."""
    if type(value) is float:  # as nearly all are
        return value if math.isfinite(value) else math.nan
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond all floats
        return math.nan
    return number if math.isfinite(number) else math.nan
