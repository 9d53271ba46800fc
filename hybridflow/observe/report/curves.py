"""The curves of metrics: every value where there is room, else of neighbouring steps mean, minimum and maximum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridflow.observe.report.choices import short

LEAST = 12  # points of a curve, however many there are


def series(lines: Sequence[Mapping[str, Any]]) -> tuple[list[int], dict[str, list[float | None]]]:
    """Return the steps, and by metric its value at each of them; one that is missing or no number is None.

    Args:
        lines: with a `step` each, in their order.
    """
    steps = [line["step"] for line in lines]
    names = sorted({name for line in lines for name in line} - {"step"})
    curves = {name: [_number(line.get(name)) for line in lines] for name in names}
    return steps, {name: curve for name, curve in curves.items() if any(value is not None for value in curve)}


def varying(curves: Mapping[str, Sequence[float | None]]) -> int:
    """Count the curves that are not one value all along: such a one takes no room."""
    return sum(len(set(curve)) > 1 for curve in curves.values())


def drawn(steps: Sequence[int], curves: Mapping[str, Sequence[float | None]], most: int) -> dict[str, Any]:
    """Return what the page draws curves from.

    Args:
        most: numbers for a curve. One that has more points has a mean, a minimum and a maximum of each bucket.

    Returns:
        `steps`; `mean`: by metric a list over these, or one number that it was all along. With buckets, `low` and
        `high` in the same way, and of a bucket the step in its middle; `every`: the steps of a bucket.
    """
    width = -(-len(steps) // max(LEAST, most // 3)) if len(steps) > most else 1
    starts = range(0, len(steps), width)
    middles = [steps[min(start + width // 2, len(steps) - 1)] for start in starts]
    shown: dict[str, Any] = {"steps": middles, "every": width, "mean": {}, "low": {}, "high": {}}
    for name, curve in curves.items():
        if len(set(curve)) == 1:
            shown["mean"][name] = short(curve[0])
            continue
        buckets = [[value for value in curve[start : start + width] if value is not None] for start in starts]
        shown["mean"][name] = [short(sum(bucket) / len(bucket)) if bucket else None for bucket in buckets]
        if width > 1:
            shown["low"][name] = [short(min(bucket)) if bucket else None for bucket in buckets]
            shown["high"][name] = [short(max(bucket)) if bucket else None for bucket in buckets]
    return shown


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:  # which a NaN is not
        return value
    return None
