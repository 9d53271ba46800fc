"""Allocation of devices to the sets of a partition: branch and bound, which ends with the best there is.

A set's ways to run stand in one table each (`SetOptions`). A step's seconds grow with those of every set, so what the
others would take at best, each by itself on all devices that are left for it, bounds what a way of one set can come to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

import numpy as np

from hybridflow.planning.search.set_options import SetOptions
from hybridflow.planning.search.step_shape import StepShape

ENOUGH = 1.0 - 1e-12  # what is better by less is rounding
AGAIN = 0.9  # of the ways, that must be left at most for another look at them


@dataclass(frozen=True)
class Allocation:
    """Chosen way of each set.

    Attributes:
        ways: places in the sets' tables.
    """

    seconds: float
    ways: tuple[int, ...]


class Excess(Protocol):
    """Seconds that a step takes beyond its shape's for what two sets do together, as a weight sync from one to another.

    Attributes:
        sets: the two.
    """

    sets: tuple[int, int]

    def of(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the seconds for ways of the one and ways of the other, one of which is alone: never below 0."""
        raise NotImplementedError


def best_allocation(
    shape: StepShape, sets: Sequence[SetOptions], devices: int, below: float = inf, excess: Excess | None = None
) -> Allocation | None:
    """Return the cheapest choice of a way for every set on so many devices in all.

    Args:
        below: only what takes fewer seconds is of interest; None is returned if nothing does.
    """
    if not all(len(one.devices) for one in sets):
        return None
    search = _Search(shape, sets, below, excess)
    search.go_on({}, [np.arange(len(one.devices)) for one in sets], devices)
    return search.best


class _Search:
    def __init__(self, shape: StepShape, sets: Sequence[SetOptions], below: float, excess: Excess | None) -> None:
        self.best: Allocation | None = None
        self._shape = shape
        self._sets = sets
        self._below = below
        self._excess = excess

    def go_on(self, chosen: dict[int, int], left: Sequence[np.ndarray], devices: int) -> None:
        """Choose for the other sets, of the ways that are left of each, ascending by their devices."""
        rest = [one for one in range(len(self._sets)) if one not in chosen]
        if (narrowed := self._narrowed(chosen, left, rest, devices)) is None:
            return
        left, bounds = narrowed
        one = min(rest, key=lambda place: len(left[place]))
        order = np.argsort(bounds[one], kind="stable")
        if len(rest) == 1:
            ways = chosen | {one: int(left[one][order[0]])}
            self._below = float(bounds[one][order[0]])
            self.best = Allocation(self._below, tuple(ways[place] for place in range(len(self._sets))))
            return
        for at in order:
            if bounds[one][at] >= self._below * ENOUGH:
                return
            way = int(left[one][at])
            self.go_on(chosen | {one: way}, left, devices - int(self._sets[one].devices[way]))

    def _narrowed(
        self, chosen: Mapping[int, int], left: Sequence[np.ndarray], rest: Sequence[int], devices: int
    ) -> tuple[list[np.ndarray], dict[int, np.ndarray]] | None:
        """Leave out ways that cannot lead below the best so far; return the others and their bounds, None: no way."""
        left = list(left)
        bounds: dict[int, np.ndarray] = {}
        before = inf
        # What one set cannot have leaves the others less: again, as long as that leaves out many.
        while (ways := sum(len(left[one]) for one in rest)) < AGAIN * before:
            before = ways
            for one in rest:
                fewest = {place: int(self._sets[place].devices[left[place][0]]) for place in rest if place != one}
                own = left[one]
                own = own[self._sets[one].devices[own] <= devices - sum(fewest.values())]
                bound = self._bounds(chosen, left, one, own, devices, fewest)
                left[one] = own[kept := bound < self._below * ENOUGH]
                bounds[one] = bound[kept]
                if not len(left[one]):
                    return None
        return left, bounds

    def _bounds(
        self,
        chosen: Mapping[int, int],
        left: Sequence[np.ndarray],
        one: int,
        own: np.ndarray,
        devices: int,
        fewest: Mapping[int, int],
    ) -> np.ndarray:
        """Return the least that each of these ways of a set can come to, with any of the others'."""
        parts = []
        for place, options in enumerate(self._sets):
            if place in chosen:
                parts.append(options.seconds[chosen[place]])
            elif place == one:
                parts.append(options.seconds[own])
            else:
                theirs = left[place]
                others = sum(fewest.values()) - fewest[place]
                budget = devices - others - self._sets[one].devices[own]
                at = np.searchsorted(options.devices[theirs], budget, side="right") - 1
                parts.append(np.minimum.accumulate(options.seconds[theirs])[at])
        seconds = np.array(np.broadcast_to(self._shape.seconds(parts), own.shape))
        excess = self._excess
        if excess is None or not all(place == one or place in chosen for place in excess.sets):
            return seconds
        close = np.nonzero(seconds < self._below * ENOUGH)[0]  # it is asked of few: it may take long to know
        first, second = (own[close] if place == one else np.array([chosen[place]]) for place in excess.sets)
        seconds[close] += excess.of(first, second)
        return seconds
