"""A plan as lines of a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from hybridflow.cli import plan_picture
from hybridflow.errors import counted
from hybridflow.observe.terminal import cell
from hybridflow.planning.run_plan import RunPlan


def lines_of(plan: RunPlan) -> Iterator[Text]:
    """Yield the lines of a plan."""
    pools = counted(len(plan.arrangement.pools), "pool")
    yield cell(f"{plan.name}: {counted(plan.placement.slots, 'slot')} in {pools}", "bold")
    yield Text("")
    yield from plan_picture.lines_of(plan.arrangement, plan.runs)
    yield Text(plan_picture.LEGEND, style="dim")
