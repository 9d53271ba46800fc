"""Lower bounds that share a time: what some do not need goes to those that did not come far enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

TURNS = 3  # of those that did not come far enough: each has the time that the ones before have left
ALIKE = 1e-6  # a bound that is as near has come to its end


def least_bound(
    bounds: Sequence[Callable[[float], float]],
    enough: float,
    within_s: float,
    progress: Callable[[int], None] = lambda done: None,
) -> float:
    """Return the least of several bounds, at most `enough`.

    Args:
        bounds: each is asked with the seconds that it may take, and gives what it knows by then: perhaps 0.
        enough: who is not below is not asked again.
        within_s: seconds of all together.
        progress: is told how many were asked in the first turn.
    """
    known = [0.0] * len(bounds)
    begun = monotonic()
    asked = [*range(len(bounds))]
    for turn in range(TURNS):
        for place, number in enumerate(asked):
            if not turn:
                progress(place)
            left = max(0.0, begun + within_s - monotonic())
            known[number] = max(known[number], bounds[number](left / (len(asked) - place)))
        asked = [number for number in asked if known[number] < enough * (1 - ALIKE)]
    return min([enough, *known])
