"""A placement as lines of a terminal: pools, their nodes, and on each slot the ranks of its roles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from hybridflow.errors import counted
from hybridflow.observe.terminal import cell, one_line
from hybridflow.parallel.layout import Coordinate, Layout
from hybridflow.planning.arrangement import Arrangement
from hybridflow.planning.slot_grid import Block, Run, View

LETTERS = {"tp": "t", "pp": "p", "cp": "c", "dp": "d"}
REPLICA = "r"  # `dp` of a layout in generation
LEGEND = "t tensor, p pipeline, c context, d data parallel rank; r generation replica; sizes of 1 are not written"
COLORS = ("cyan", "green", "yellow", "magenta", "blue", "red", "bright_cyan", "bright_green")  # of replicas, in turn
FOLLOWING = "  … "  # begins a line that says what further nodes or slots are like; a terminal may wrap it


def lines_of(arrangement: Arrangement, runs: Sequence[Run]) -> Iterator[Text]:
    """Yield the lines of a picture of all pools."""
    for pool, slots in arrangement.pools.items():
        own = [run for run in runs if run.blocks[0].pool == pool]
        on_nodes = [block.node for run in own for block in run.blocks]
        yield Text(f"pool {one_line(pool)}: {counted(slots, 'slot')} on {nodes_text(on_nodes)}", style="bold")
        heads = {view: head(view, arrangement.seats[view.role].layout) for view in own[0].blocks[0].ranks}
        for run in own:
            yield from _block(run.blocks[0], heads, arrangement)
            if (followers := followers_text(run)) != "":
                yield cell(f"{FOLLOWING}{followers}", "italic")
        yield Text("")


def label(view: View, at: Coordinate, layout: Layout) -> str:
    """Write where a rank is, on the axes of which there is more than one."""
    sizes = sizes_of(view, layout)
    many = [axis for axis, size in sizes.items() if size > 1] or ["dp"]
    return " ".join(f"{_letter(view, axis)}{getattr(at, axis)}" for axis in many)


def sizes_of(view: View, layout: Layout) -> dict[str, int]:
    """Return the sizes of a view's axes, the one that numbers replicas first."""
    if view.generates:
        tensor, pipeline = layout.generation_sizes
        return {"dp": layout.replicas, "pp": pipeline, "tp": tensor}
    return {"dp": layout.data, "cp": layout.context, "pp": layout.pipeline, "tp": layout.tensor}


def head(view: View, layout: Layout) -> str:
    """Name a role and its sizes."""
    sizes = sizes_of(view, layout)
    many = [f"{LETTERS[axis]}{sizes[axis]}" for axis in ("tp", "pp", "cp") if sizes.get(axis, 1) > 1]
    if view.generates:
        replicas = counted(sizes["dp"], "replica")
        return f"  generates, {replicas} of {' '.join(many)}" if many else f"  generates, {replicas}"
    return " ".join([one_line(view.role), *many, f"d{sizes['dp']}"])


def nodes_text(nodes: Sequence[int]) -> str:
    """Name nodes: `node 0`, `nodes 0–3`."""
    low, high = min(nodes), max(nodes)
    return f"node {low}" if low == high else f"nodes {low}–{high}"


def followers_text(run: Run) -> str:
    """Say what the further blocks of a run are like; "" if there are none."""
    if len(run.blocks) == 1:
        return ""
    first, second, last = run.blocks[0], run.blocks[1], run.blocks[-1]
    slots = f"slots {second.slots[0]}–{last.slots[-1]}"
    where = f"{nodes_text([second.node, last.node])} ({slots})" if run.nodes else slots
    like = f"node {first.node}" if run.nodes else f"slots {first.slots[0]}–{first.slots[-1]}"
    each = "node" if run.nodes else f"{len(first.slots)} slots"
    steps = [f"{_name(view)} {_steps(view, step)}" for view, step in run.steps.items() if step != Coordinate()]
    return f"{where}: as {like}; each further {each}: {', '.join(steps) or 'the same'}"


def color_of(at: Coordinate) -> int:
    """Return the number of a rank's color: ranks of one replica have the same."""
    return at.dp % len(COLORS)


def _name(view: View) -> str:
    return one_line(view.role) + (" generation" if view.generates else "")


def _steps(view: View, step: Coordinate) -> str:
    added = {axis: getattr(step, axis) for axis in ("dp", "cp", "pp", "tp")}
    return " ".join(f"{_letter(view, axis)}{number:+d}" for axis, number in added.items() if number)


def _letter(view: View, axis: str) -> str:
    return REPLICA if view.generates and axis == "dp" else LETTERS[axis]


def _block(block: Block, heads: dict[View, str], arrangement: Arrangement) -> Iterator[Text]:
    """Yield a line of slot numbers, and one for each view."""
    labels = {
        view: [label(view, at, arrangement.seats[view.role].layout) for at in ranks]
        for view, ranks in block.ranks.items()
    }
    numbers = [str(slot) for slot in block.slots]
    width = 2 + max(len(text) for texts in (*labels.values(), numbers) for text in texts)
    first = 4 + max(map(len, [*heads.values(), f"node {block.node}"]))
    yield Text(
        f"  {f'node {block.node}':<{first - 6}}slot{''.join(f'{number:>{width}}' for number in numbers)}", style="dim"
    )
    for view, texts in labels.items():
        line = Text(f"  {heads[view]:<{first - 2}}")
        for text, at in zip(texts, block.ranks[view], strict=True):
            line.append(f"{text:>{width}}", style=COLORS[color_of(at)])
        yield line
