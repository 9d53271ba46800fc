"""Curves of accuracy as SVG, a small panel for each algorithm and a line for each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

WIDTH, HEIGHT, COLUMNS, GAP = 200, 110, 4, 34
COLORS = ("#3b6ea5", "#c8702a", "#5a8f4e", "#8c5aa8", "#777777")
Curve = Mapping[int, float]


def svg(panels: Mapping[str, Sequence[Curve]], gain: float) -> str:
    """Draw the figure; every panel has the same axes: accuracy from 0 to 1 over steps from 0 to the most of any.

    A dashed line is what is to be reached: `gain` above the mean of a panel's beginnings.
    """
    most = max(max(curve) for curves in panels.values() for curve in curves)
    rows = -(-len(panels) // COLUMNS)
    size = (COLUMNS * (WIDTH + GAP) + GAP, rows * (HEIGHT + GAP) + GAP)
    found = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{size[0]}" height="{size[1]}" fill="white"/>',
    ]
    for number, (name, curves) in enumerate(panels.items()):
        left, top = GAP + number % COLUMNS * (WIDTH + GAP), GAP + number // COLUMNS * (HEIGHT + GAP)
        found.append(f'<g transform="translate({left} {top})">{_panel(name, curves, most, gain)}</g>')
    return "\n".join([*found, "</svg>", ""])


def _panel(name: str, curves: Sequence[Curve], most: int, gain: float) -> str:
    wanted = HEIGHT * (1 - fmean(curve[0] for curve in curves) - gain)
    parts = [
        f'<text x="0" y="-6" font-weight="bold">{name}</text>',
        f'<path d="M0 0V{HEIGHT}H{WIDTH}" fill="none" stroke="#444"/>',
        f'<path d="M0 {wanted:.1f}H{WIDTH}" stroke="#999" stroke-dasharray="3 3"/>',
        f'<text x="-4" y="4" text-anchor="end">1</text><text x="-4" y="{HEIGHT}" text-anchor="end">0</text>',
        f'<text x="{WIDTH}" y="{HEIGHT + 13}" text-anchor="end">{most} steps</text>',
    ]
    for color, curve in zip(COLORS * len(curves), curves, strict=False):
        points = " ".join(f"{WIDTH * s / most:.1f},{HEIGHT * (1 - curve[s]):.1f}" for s in sorted(curve))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
    return "".join(parts)
