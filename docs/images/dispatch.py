"""Draws dispatch.svg, which rank gets which rows, from the protocols themselves: `python docs/images/dispatch.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hybridflow.batch import Batch, BatchRef
from hybridflow.dispatch import Call, protocols
from hybridflow.parallel.layout import Layout

LAYOUT = Layout(tensor=2, pipeline=2, data=2)
ROWS = 8
SHOWN = {
    "one_to_all": "every rank gets all, and answers",
    "3d_proto": "replicas share the rows out; one rank of each answers",
    "dp_proto": "all ranks share the rows out, and all answer",
    "rank_zero": "one rank gets all; no other is called",
}
FULL, PALE, INK, GREY = "#2f6fb2", "#e3e3df", "#1d2733", "#5a6472"
CELL, ROW, PANEL, TOP = 20, 27, 480, 96


def picture() -> str:
    """Draw the SVG."""
    height = 2 * (TOP + ROW * LAYOUT.size + 20) + 40
    panels = [
        panel(name, 20 + number % 2 * PANEL, number // 2 * (TOP + ROW * LAYOUT.size + 20))
        for number, name in enumerate(SHOWN)
    ]
    title = "Which of eight rows each of eight ranks gets by four dispatch protocols, and whose outputs are the result"
    note = (
        f'<text x="20" y="{height - 18}">blue: a row that the rank gets · outlined: its output is in the result · '
        "tensor 2 × pipeline 2 × data 2</text>"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 980 {height}" '
            f'font-family="Helvetica, Arial, sans-serif" font-size="14" role="img" aria-label="{title}">',
            f'<rect width="980" height="{height}" rx="10" fill="#fbfbf9"/>',
            f'<g fill="{INK}">',
            *(line for lines in panels for line in lines),
            note,
            "</g>",
            "</svg>\n",
        ]
    )


def panel(name: str, x: int, y: int) -> Iterator[str]:
    """Draw the ranks by one protocol."""
    got = rows_of(name)
    answering = answers_of(name, got)
    yield f'<text x="{x}" y="{y + 40}" font-size="17" font-weight="bold">{name}</text>'
    yield f'<text x="{x}" y="{y + 62}" fill="{GREY}">{SHOWN[name]}</text>'
    for rank, at in enumerate(LAYOUT.coordinates):
        top = y + TOP - 14 + rank * ROW
        yield f'<text x="{x}" y="{top + 15}">rank {rank}</text>'
        yield f'<text x="{x + 58}" y="{top + 15}" fill="{GREY}" font-size="12">tp {at.tp} pp {at.pp} dp {at.dp}</text>'
        for row in range(ROWS):
            color = FULL if row in got[rank] else PALE
            left = x + 160 + row * CELL
            yield f'<rect x="{left}" y="{top}" width="{CELL - 3}" height="{CELL - 1}" fill="{color}"/>'
        if rank in answering:
            outline = f'fill="none" stroke="{INK}" stroke-width="2"'
            yield f'<rect x="{x + 157}" y="{top - 3}" width="{ROWS * CELL + 3}" height="{CELL + 5}" {outline}/>'


def rows_of(name: str) -> list[list[int]]:
    """Return the rows that each rank gets."""
    rows = BatchRef.from_local(Batch(row=np.arange(ROWS)))
    calls = protocols.get(name)().distribute(LAYOUT, Call((rows,)))
    return [[] if call is None else call.args[0].get().dense("row").tolist() for call in calls]


def answers_of(name: str, got: Sequence[Sequence[int]]) -> set[int]:
    """Return the ranks whose outputs the result is made of: outputs that say which rank they are from."""
    outputs = [BatchRef.from_local(Batch(rank=np.full(max(1, len(rows)), rank))) for rank, rows in enumerate(got)]
    result = protocols.get(name)().collect(LAYOUT, outputs)
    parts = result if isinstance(result, list) else [result]
    return {int(rank) for part in parts for rank in part.get().dense("rank")}


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(picture())
