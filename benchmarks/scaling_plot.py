"""Curves of seconds over sizes as SVG, a panel for each thing that is varied, on logarithmic axes."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor, log10
from typing import Any

WIDTH, HEIGHT, GAP = 220, 150, 46
COLORS = {"framework": "#3b6ea5", "step": "#c8702a"}
TITLES = {"rows": "rows of a step", "tokens": "tokens of a response", "ranks": "ranks"}


def svg(curves: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Draw seconds of a step, by kind of engines and by what is varied; all panels have the same axis of seconds."""
    seconds = [taken for by in curves.values() for one in by.values() for taken in one["seconds"]]
    low, high = floor(log10(min(seconds))), ceil(log10(max(seconds)))
    varied = list(dict.fromkeys(name for by in curves.values() for name in by))
    size = (len(varied) * (WIDTH + GAP) + GAP, HEIGHT + 2 * GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{size[0]}" height="{size[1]}" fill="white"/>',
    ]
    for number, name in enumerate(varied):
        lines = {kind: by[name] for kind, by in curves.items() if name in by}
        parts.append(
            f'<g transform="translate({GAP + number * (WIDTH + GAP)} {GAP})">{_panel(name, lines, low, high)}</g>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _panel(name: str, lines: Mapping[str, Mapping[str, Any]], low: int, high: int) -> str:
    sizes = [size for one in lines.values() for size in one["sizes"]]
    left, right = log10(min(sizes)), log10(max(sizes))

    def x(size: float) -> float:
        return WIDTH * (log10(size) - left) / max(right - left, 1e-9)

    def y(seconds: float) -> float:
        return HEIGHT * (high - log10(seconds)) / max(high - low, 1)

    parts = [
        f'<text x="0" y="-8" font-weight="bold">{TITLES[name]}</text>',
        f'<path d="M0 0V{HEIGHT}H{WIDTH}" fill="none" stroke="#444"/>',
        *(
            f'<text x="-4" y="{y(10.0**power) + 4:.1f}" text-anchor="end">{10.0**power:g} s</text>'
            for power in range(low, high + 1)
        ),
        *(
            f'<text x="{x(size):.1f}" y="{HEIGHT + 14}" text-anchor="middle">{size}</text>'
            for size in sorted({min(sizes), max(sizes)})
        ),
    ]
    for kind, one in lines.items():
        at = " ".join(f"{x(size):.1f},{y(taken):.1f}" for size, taken in zip(one["sizes"], one["seconds"], strict=True))
        parts.append(f'<polyline points="{at}" fill="none" stroke="{COLORS[kind]}" stroke-width="1.5"/>')
        parts.append(
            f'<text x="{WIDTH}" y="{y(one["seconds"][-1]) - 5:.1f}" text-anchor="end" fill="{COLORS[kind]}">'
            f"{kind}: exponent {one['exponent']:.2f}</text>"
        )
    return "".join(parts)
