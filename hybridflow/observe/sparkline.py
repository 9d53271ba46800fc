"""Sparklines: the course of a number in a row of characters."""

from __future__ import annotations

from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
LARGEST = 1e300  # the sum of as many as there can be is a number, too


def sparkline(points: Sequence[tuple[int, float | None]], width: int) -> str:
    """Draw points in at most `width` characters, each the mean of its share; one without a number is a blank.

    Args:
        points: (position, value), by position; equal distances of positions are equal distances on the line.
    """
    if not points or width < 1:
        return ""
    first = points[0][0]
    span = points[-1][0] - first + 1
    columns = min(width, span)
    shares: list[list[float]] = [[] for _ in range(columns)]
    for position, value in points:
        if value is not None:
            shares[(position - first) * columns // span].append(max(-LARGEST, min(LARGEST, value)))
    means = [sum(share) / len(share) if share else None for share in shares]
    numbers = [mean for mean in means if mean is not None]
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    return "".join(" " if mean is None else _bar((mean - low) / (high - low) if high > low else 0.0) for mean in means)


def _bar(share: float) -> str:
    return BARS[min(len(BARS) - 1, int(share * len(BARS)))]
