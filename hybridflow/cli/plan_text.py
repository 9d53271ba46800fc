"""A plan as lines of a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.text import Text

from hybridflow.cli import plan_picture
from hybridflow.cli.plan_bars import (
    CallBar,
    MemoryBar,
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
from hybridflow.errors import counted
from hybridflow.observe import terminal
from hybridflow.observe.terminal import cell, one_line
from hybridflow.planning.estimates import SlotMemory, StepBytes, StepEstimate
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.run_plan import RunPlan
from hybridflow.planning.slot_grid import WIDEST

UNKNOWN = "hardware: not known, so memory has no limit here, and a step no seconds; give hardware=NAME"
BAR = 40  # characters
GLYPHS = "█▓▒░▞▚▤▥▦▧"
COLORS = ("blue", "green", "yellow", "magenta", "cyan", "red", "bright_blue", "bright_green")


def lines_of(plan: RunPlan, width: int = terminal.WIDEST) -> Iterator[Text]:
    """Yield the lines of a plan, for a terminal of so many columns."""
    pools = counted(len(plan.arrangement.pools), "pool")
    yield cell(f"{plan.name}: {counted(plan.placement.slots, 'slot')} in {pools}", "bold")
    yield cell(hardware_text(plan.hardware) if plan.hardware else UNKNOWN, "dim")
    yield Text("")
    yield from _picture(plan, width)
    yield Text(plan_picture.LEGEND, style="dim")
    if memory := with_tensors(plan.memory):
        yield Text("")
        yield from memory_lines(memory, width)
    if plan.step is not None:
        yield Text("")
        yield from step_lines(plan.step, plan.arrangement.pools)
    if plan.bytes is not None:
        yield Text("")
        yield from bytes_lines(plan.bytes)
    remarks = (
        *((f"warning: {remark}", "yellow") for remark in plan.warnings),
        *((f"left out: {remark}", "dim") for remark in plan.left_out),
        *((f"assumed: {note}", "dim") for note in plan.notes),
    )
    if remarks:
        yield Text("")
    for text, style in remarks:
        yield cell(text, style)


def _picture(plan: RunPlan, width: int) -> list[Text]:
    """Return the picture of the pools with as many slots beside each other as there is room for."""
    for slots in (WIDEST, WIDEST // 2, WIDEST // 4):
        lines = [*plan_picture.lines_of(plan.arrangement, plan.runs(slots))]
        if max(len(line) for line in lines if not line.plain.startswith(plan_picture.FOLLOWING)) <= width:
            break
    return lines


def hardware_text(hardware: Hardware) -> str:
    """Describe what a plan is for, and where its numbers are from."""
    size = size_text(hardware.memory_bytes)
    devices = f"{hardware.devices_per_node} {hardware.device.upper()}s of {size} a node"
    if hardware.cores:
        devices = f"processes of {size} on {counted(hardware.cores, 'core')} that they share"
    return f"hardware {hardware.name}: {devices}; numbers: {hardware.source.strip().rstrip('.')}"


def memory_lines(memory: Sequence[SlotMemory], width: int) -> Iterator[Text]:
    """Yield a bar for each phase of the fullest slot of each pool."""
    kinds = kinds_of(memory)
    scale = memory_scale(memory)
    bars = {slot.pool: [*memory_bars(slot)] for slot in memory}
    names = max(len(one_line(bar.phase)) for own in bars.values() for bar in own)
    for slot in memory:
        of = f", of {size_text(slot.device)}" if slot.device else ""
        yield Text(f"memory of a slot of pool {one_line(slot.pool)}{of}", style="bold")
        for bar in bars[slot.pool]:
            line = Text(f"  {one_line(bar.phase):<{names}}  ")
            line.append_text(_memory_bar(bar, kinds, scale, slot.device))
            line.append(f"  {size_text(bar.bytes):>9}", style="bold red" if 0 < slot.device < bar.bytes else "")
            parts = Text(f"  {_own_parts(slot, bar)}", style="dim")
            if len(line) + len(parts) <= width:
                yield line.append_text(parts)
            else:
                yield from (line, Text("    ").append_text(parts))
    legend = Text("  ")
    for number, kind in enumerate(kinds):
        legend.append(GLYPHS[number % len(GLYPHS)], style=COLORS[number % len(COLORS)])
        legend.append(f" {one_line(kind)}  ", style="dim")
    yield legend


def _own_parts(slot: SlotMemory, bar: MemoryBar) -> str:
    """Name what a bar is made of: what is always there by role, then what a phase adds."""
    if bar.phase in slot.phases:
        parts = [f"{one_line(what)} {size_text(size)}" for what, size in slot.phases[bar.phase].items()]
        return f"+ {', '.join(parts)}" if parts else ""
    by_role: dict[str, list[str]] = {}
    for name, size in slot.held.items():
        role, _, what = name.rpartition(": ")
        by_role.setdefault(one_line(role), []).append(f"{one_line(what)} {size_text(size)}")
    return "; ".join(f"{role}: {', '.join(parts)}" for role, parts in by_role.items())


def _memory_bar(bar: MemoryBar, kinds: Sequence[str], scale: float, device: float) -> Text:
    """Draw the parts to scale, with a line where the device ends."""
    drawn = Text()
    done = 0.0
    for what, size in bar.parts.items():
        number = kinds.index(what)
        begin, end = round(BAR * done / scale), round(BAR * (done + size) / scale)
        drawn.append(GLYPHS[number % len(GLYPHS)] * (end - begin), style=COLORS[number % len(COLORS)])
        done += size
    drawn.append(" " * (BAR - len(drawn)))
    limit = round(BAR * device / scale) if device else BAR
    return Text.assemble(drawn[:limit], ("│", "dim"), drawn[limit:])


def step_lines(step: StepEstimate, pools: Mapping[str, int]) -> Iterator[Text]:
    """Yield a step's calls along its time, and what each pool waits."""
    yield Text(step_text(step), style="bold")
    end = step_end(step) or 1.0
    bars = call_bars(step)
    names = max(len(one_line(bar.name)) for bar in bars) if bars else 0
    on = max(map(len, map(one_line, pools)))
    for bar in bars:
        color = COLORS[[*pools].index(bar.pool) % len(COLORS)]
        line = Text(f"  {one_line(bar.pool):<{on}}  {one_line(bar.name):<{names}}  ")
        line.append(_call_bar(bar, end), style=color)
        line.append(f"│ {spread_text(bar.spread) if bar.spread else ''}", style="dim")
        yield line
    for pool, idle in step.idle.items():
        share = f" ({idle / step.seconds.mean:.0%})" if step.seconds.mean else ""
        yield cell(f"  pool {pool} is idle {seconds_text(idle)}{share}")


def step_text(step: StepEstimate) -> str:
    """Say what a step takes."""
    rate = f", {step.tokens / step.seconds.mean:,.0f} tokens a second" if step.seconds.mean else ""
    return f"a step takes {spread_text(step.seconds)}{rate}"


def _call_bar(bar: CallBar, end: float) -> str:
    """Draw a call where it is in the step; the shortest is still seen."""
    drawn = [" "] * BAR
    for begin, finish in bar.spans:
        first = min(BAR - 1, int(BAR * begin / end))
        last = max(first + 1, round(BAR * finish / end))
        drawn[first:last] = "█" * (last - first)
    return "".join(drawn[:BAR])


def bytes_lines(moved: StepBytes) -> Iterator[Text]:
    """Yield what a step moves between processes, of all ranks together."""
    for line in bytes_texts(moved):
        head, bracket, parts = line.partition(" (")
        yield Text.assemble((head, "bold"), (bracket + parts, "dim"))


def bytes_texts(moved: StepBytes) -> Iterator[str]:
    """Yield what a step moves between processes, in words."""
    for name, parts in (("weight sync", moved.weight_sync), ("rows", moved.rows)):
        told = ", ".join(f"{one_line(what)} {size_text(size)}" for what, size in parts.items() if size)
        yield f"bytes of a step, {name}: {size_text(sum(parts.values()))}{f' ({told})' if told else ''}"
