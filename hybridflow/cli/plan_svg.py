"""A plan as a drawing: one SVG file that needs nothing else, with a ground of its own for light and dark pages."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from hybridflow.cli.plan_picture import LEGEND, color_of, followers_text, head, label, nodes_text
from hybridflow.errors import counted
from hybridflow.observe.terminal import one_line
from hybridflow.planning.run_plan import RunPlan
from hybridflow.planning.slot_grid import WIDEST, Block, Run

WIDTH, MARGIN = 980, 20
HEADS, SLOT, ROW = 236, 86, 22  # a column of names, a slot's width, a line of ranks
INK, FAINT, GROUND, POOL, EDGE = "#1d2733", "#5a6472", "#fbfbf9", "#eef1f5", "#aab4c0"
CHIPS = ("#cfe3f5", "#d5ecd4", "#fbe5bd", "#ecd5ef", "#f8d3cd", "#d3ecec", "#dedcf6", "#e6e6cf")  # by replica, in turn
PER_LINE = 150  # characters of small text


class Drawing:
    """Lines of SVG, and how far down they go."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.y = float(MARGIN)

    def text(self, x: float, text: str, *, size: int = 13, fill: str = INK, more: str = "") -> None:
        """Write a line whose foot is 5 above the next row; what it says moves nothing and is no markup."""
        self.parts.append(
            f'<text x="{x:g}" y="{self.y + ROW - 7:g}" font-size="{size}" fill="{fill}"{more}>'
            f"{escape(one_line(text))}</text>"
        )

    def box(self, x: float, y: float, width: float, height: float, fill: str, *, more: str = "") -> None:
        """Draw a rectangle."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="{fill}"{more}/>'
        )

    def paragraph(self, x: float, text: str) -> None:
        """Write small text over as many lines as it needs."""
        for line in textwrap.wrap(text, PER_LINE):
            self.text(x, line, size=12, fill=FAINT)
            self.y += ROW - 4


def drawing(plan: RunPlan) -> str:
    """Draw a plan."""
    canvas = Drawing()
    canvas.text(MARGIN, f"{plan.name}: {_sizes(plan)}", size=16, more=' font-weight="bold"')
    canvas.y += ROW + 8
    for pool in plan.arrangement.pools:
        _pool(canvas, plan, pool)
    canvas.paragraph(MARGIN, LEGEND)
    height = canvas.y + MARGIN
    title = quoteattr(one_line(f"Plan of the run {plan.name}: {_sizes(plan)}"))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
            f'font-family="Helvetica, Arial, sans-serif" role="img" aria-label={title}>',
            f'<rect width="{WIDTH}" height="{height:g}" rx="10" fill="{GROUND}"/>',
            *canvas.parts,
            "</svg>\n",
        ]
    )


def _sizes(plan: RunPlan) -> str:
    return f"{counted(plan.placement.slots, 'slot')} in {counted(len(plan.arrangement.pools), 'pool')}"


def _pool(canvas: Drawing, plan: RunPlan, pool: str) -> None:
    """Draw a pool: its runs of slots, one below the other, on a ground of its own."""
    runs = [run for run in plan.runs if run.blocks[0].pool == pool]
    top = canvas.y
    at = len(canvas.parts)  # where the ground goes, whose height is known at the end
    on_nodes = nodes_text([block.node for run in runs for block in run.blocks])
    canvas.text(
        MARGIN + 12,
        f"pool {pool}: {counted(plan.arrangement.pools[pool], 'slot')} on {on_nodes}",
        more=' font-weight="bold"',
    )
    canvas.y += ROW + 4
    for run in runs:
        _run(canvas, plan, run)
    canvas.y += 4
    ground = Drawing()
    ground.box(MARGIN, top, WIDTH - 2 * MARGIN, canvas.y - top, POOL, more=f' stroke="{EDGE}"')
    canvas.parts[at:at] = ground.parts
    canvas.y += 14


def _run(canvas: Drawing, plan: RunPlan, run: Run) -> None:
    block = run.blocks[0]
    canvas.text(MARGIN + 12, f"node {block.node}", size=12, fill=FAINT)
    for x, slot in zip(_columns(block), block.slots, strict=True):
        canvas.text(x + SLOT / 2, f"slot {slot}", size=11, fill=FAINT, more=' text-anchor="middle"')
    canvas.y += ROW - 2
    for x in _columns(block):
        height = ROW * len(block.ranks) + 4
        canvas.box(x + 1, canvas.y - 2, SLOT - 2, height, "#ffffff", more=f' stroke="{EDGE}"')
    for view, ranks in block.ranks.items():
        layout = plan.arrangement.seats[view.role].layout
        canvas.text(MARGIN + 12, head(view, layout).strip(), size=12, fill=FAINT if view.generates else INK)
        for x, at in zip(_columns(block), ranks, strict=True):
            canvas.box(x + 4, canvas.y + 1, SLOT - 8, ROW - 3, CHIPS[color_of(at)])
            canvas.text(x + SLOT / 2, label(view, at, layout), size=11, more=' text-anchor="middle"')
        canvas.y += ROW
    canvas.y += 6
    if followers := followers_text(run):
        canvas.paragraph(MARGIN + 12, followers)
    canvas.y += 4


def _columns(block: Block) -> Iterator[float]:
    """Yield where each of its slots begins."""
    assert len(block.slots) <= WIDEST
    return (MARGIN + HEADS + place * SLOT for place in range(len(block.slots)))
