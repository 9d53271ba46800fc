"""A plan as a drawing: one SVG file that needs nothing else, with a ground of its own for light and dark pages."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

from hybridflow.cli.plan_bars import (
    call_bars,
    kinds_of,
    memory_bars,
    memory_scale,
    seconds_text,
    size_text,
    spread_text,
    step_end,
    with_tensors,
)
from hybridflow.cli.plan_picture import LEGEND, color_of, followers_text, head, label, nodes_text
from hybridflow.cli.plan_text import bytes_texts, hardware_text, step_text
from hybridflow.errors import counted
from hybridflow.observe.terminal import one_line
from hybridflow.planning.estimates import SlotMemory, StepEstimate
from hybridflow.planning.run_plan import RunPlan
from hybridflow.planning.slot_grid import WIDEST, Block, Run

WIDTH, MARGIN = 980, 20
HEADS, SLOT, ROW = 236, 86, 22  # a column of names, a slot's width, a line of ranks
INK, FAINT, GROUND, POOL, EDGE = "#1d2733", "#5a6472", "#fbfbf9", "#eef1f5", "#aab4c0"
CHIPS = ("#cfe3f5", "#d5ecd4", "#fbe5bd", "#ecd5ef", "#f8d3cd", "#d3ecec", "#dedcf6", "#e6e6cf")  # by replica, in turn
# Of bars: memory has many kinds.
FILLS = (
    "#2f6fb2", "#4f9d5b", "#e0953c", "#9a6fb0", "#c8574a", "#3f9c9c", "#7c74c9", "#8d8d5a",
    "#6aaee0", "#93c98f", "#f0c27b", "#c9a3da", "#e59a92", "#8fd0d0",
)  # fmt: skip
ALARM = "#b3261e"
NAMES, BAR = 270, 430  # names of bars, and what a whole one takes
GAP = 14
PER_LINE = 150  # characters of small text
BOLD = ' font-weight="bold"'


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

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, *, radius: int = 4, more: str = ""
    ) -> None:
        """Draw a rectangle; `radius`: of its corners."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" fill="{fill}"{more}/>'
        )

    def paragraph(self, x: float, text: str) -> None:
        """Write small text over as many lines as it needs."""
        for line in textwrap.wrap(text, PER_LINE):
            self.text(x, line, size=12, fill=FAINT)
            self.y += ROW - 4


def drawing(plan: RunPlan) -> str:
    """Draw a plan."""
    canvas = Drawing()
    canvas.text(MARGIN, f"{plan.name}: {_sizes(plan)}", size=16, more=BOLD)
    canvas.y += ROW + 8
    for pool in plan.arrangement.pools:
        _pool(canvas, plan, pool)
    canvas.paragraph(MARGIN, LEGEND)
    if memory := with_tensors(plan.memory):
        canvas.y += GAP
        _memory(canvas, memory)
    if plan.step is not None:
        canvas.y += GAP
        _step(canvas, plan.step, list(plan.arrangement.pools))
    if plan.bytes is not None:
        canvas.y += GAP
        for line in bytes_texts(plan.bytes):
            canvas.paragraph(MARGIN, line)
    if plan.hardware is not None:
        canvas.y += GAP
        canvas.paragraph(MARGIN, hardware_text(plan.hardware))
    for remark in plan.warnings:
        canvas.paragraph(MARGIN, f"warning: {remark}")
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
    runs = [run for run in plan.runs() if run.blocks[0].pool == pool]
    top = canvas.y
    at = len(canvas.parts)  # where the ground goes, whose height is known at the end
    on_nodes = nodes_text([block.node for run in runs for block in run.blocks])
    canvas.text(
        MARGIN + 12,
        f"pool {pool}: {counted(plan.arrangement.pools[pool], 'slot')} on {on_nodes}",
        more=BOLD,
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
        canvas.y += GAP / 2
    canvas.y += 4


def _memory(canvas: Drawing, memory: Sequence[SlotMemory]) -> None:
    """Draw a bar for each phase of each pool, with a line where the device ends."""
    kinds = kinds_of(memory)
    scale = BAR / memory_scale(memory)
    for slot in memory:
        of = f", of {size_text(slot.device)}" if slot.device else ""
        canvas.text(MARGIN, f"memory of a slot of pool {slot.pool}{of}", more=BOLD)
        canvas.y += ROW
        for bar in memory_bars(slot):
            canvas.text(MARGIN + 12, bar.phase, size=12)
            x = float(MARGIN + NAMES)
            for what, size in bar.parts.items():
                canvas.box(x, canvas.y + 3, size * scale, ROW - 6, FILLS[kinds.index(what) % len(FILLS)], radius=0)
                x += size * scale
            if slot.device:
                canvas.box(MARGIN + NAMES + slot.device * scale, canvas.y, 2, ROW, INK, radius=0)
            fill = ALARM if 0 < slot.device < bar.bytes else INK
            canvas.text(MARGIN + NAMES + BAR + 12, size_text(bar.bytes), size=12, fill=fill)
            canvas.y += ROW
    _legend(canvas, kinds)


def _legend(canvas: Drawing, kinds: Sequence[str]) -> None:
    x = float(MARGIN + 12)
    for number, kind in enumerate(kinds):
        needed = 40 + 7.2 * len(kind)
        if x + needed > WIDTH - MARGIN:
            x = MARGIN + 12
            canvas.y += ROW
        canvas.box(x, canvas.y + 4, 14, 14, FILLS[number % len(FILLS)])
        canvas.text(x + 20, kind, size=12, fill=FAINT)
        x += needed
    canvas.y += ROW


def _step(canvas: Drawing, step: StepEstimate, pools: Sequence[str]) -> None:
    """Draw the calls of a step along its time, in the color of their pool."""
    canvas.text(MARGIN, step_text(step), more=BOLD)
    canvas.y += ROW
    scale = BAR / (step_end(step) or 1.0)
    for bar in call_bars(step):
        canvas.text(MARGIN + 12, f"{bar.pool}: {bar.name}", size=12)
        for begin, end in bar.spans:
            fill = FILLS[pools.index(bar.pool) % len(FILLS)]
            width = max(1.5, (end - begin) * scale)
            canvas.box(MARGIN + NAMES + begin * scale, canvas.y + 3, width, ROW - 6, fill, radius=0)
        if bar.spread is not None:
            canvas.text(MARGIN + NAMES + BAR + 12, spread_text(bar.spread), size=12, fill=FAINT)
        canvas.y += ROW
    for pool, idle in step.idle.items():
        share = f" ({idle / step.seconds.mean:.0%})" if step.seconds.mean else ""
        canvas.text(MARGIN + 12, f"pool {pool} is idle {seconds_text(idle)}{share}", size=12, fill=FAINT)
        canvas.y += ROW - 4


def _columns(block: Block) -> Iterator[float]:
    """Yield where each of its slots begins."""
    assert len(block.slots) <= WIDEST
    return (MARGIN + HEADS + place * SLOT for place in range(len(block.slots)))
