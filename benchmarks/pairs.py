"""Two ways to do a thing, timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median, quantiles
from time import perf_counter
from typing import Any

Work = Callable[[], Any]


def paired(name: str, ours: Work, theirs: Work, times: int) -> dict[str, Any]:
    """`name`: the median of the pairwise ratios of seconds, ours / theirs; beside it the quartiles and both medians."""
    for _ in range(max(3, times // 10)):
        ours(), theirs()
    pairs = []
    for turn in range(times):
        if turn % 2:
            mine, other = seconds(ours), seconds(theirs)
        else:
            other, mine = seconds(theirs), seconds(ours)
        pairs.append((mine, other))
    low, middle, high = quantiles([mine / other for mine, other in pairs], n=4)
    ours_us, theirs_us = (round(1e6 * median(column), 1) for column in zip(*pairs, strict=True))
    return {
        name: round(middle, 4),
        f"{name}_quartiles": [round(low, 4), round(high, 4)],
        f"{name}_us": {"ours": ours_us, "theirs": theirs_us},
    }


def pairwise(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median of the pairs' ratios."""
    return round(median(a / b for a, b in zip(above, below, strict=True)), 3)


def seconds(work: Work) -> float:
    """How long it takes."""
    begin = perf_counter()
    work()
    return perf_counter() - begin
