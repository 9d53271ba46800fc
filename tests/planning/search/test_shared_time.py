"""Bounds that share a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hybridflow.planning.search.shared_time import least_bound

NEVER = 1e9


def bound(needs_s: float, value: float, asked: list[float]) -> Callable[[float], float]:
    """A bound that is known once it may take so many seconds, which it does not take; noted is what it may."""

    def known(limit_s: float) -> float:
        asked.append(limit_s)
        return value if limit_s >= needs_s else 0.0

    return known


def test_what_others_leave_goes_to_who_has_not_come_far_enough() -> None:
    asked: list[float] = []
    others = [bound(0.0, 2.0, []) for _ in range(9)]
    assert least_bound([bound(5.0, 1.5, asked), *others], 1.0, 10.0) == 1.0
    assert asked == [pytest.approx(1.0, rel=1e-2), pytest.approx(10.0, rel=1e-2)]


def test_the_least_counts_and_who_is_not_below_is_not_asked_again() -> None:
    asked: list[float] = []
    told: list[int] = []
    bounds = [bound(0.0, 0.999999999, asked), bound(0.0, 0.75, []), bound(NEVER, 1.0, [])]
    assert least_bound(bounds[:2], 1.0, 1.0, told.append) == 0.75
    assert (len(asked), told) == (1, [0, 1])
    assert least_bound(bounds, 1.0, 1.0) == 0.0, "of one nothing is known"
    assert least_bound([], 1.0, 1.0) == 1.0
