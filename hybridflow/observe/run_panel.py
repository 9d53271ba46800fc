"""The live view of a run as rich draws it: a pure function of its state, of a width and of a time.

What comes from a model, a file or a name is escaped and cut: it moves no cursor, is no markup and fills no screen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from hybridflow.observe.event_words import in_words, time_of
from hybridflow.observe.json_lines import Record
from hybridflow.observe.row_sample import NAME, cut, sample
from hybridflow.observe.run_records import finite
from hybridflow.observe.run_state import RunState
from hybridflow.observe.shown_metrics import SHOWN, ShownMetric
from hybridflow.observe.sparkline import sparkline
from hybridflow.observe.step_phases import PhaseTime, idle_seconds, phase_times, step_seconds
from hybridflow.observe.terminal import cell, one_line

NARROWEST = 20
TWO_COLUMNS = 96  # characters from which numbers and times stand side by side
LONGEST_LINE = 40  # of a sparkline
LONGEST_BAR = 40  # of the steps that are done
TIME = len("00:00:00 ")  # of an event
STATUS = {"running": "green", "starting": "yellow", "ended": "blue"}
PHASE_STYLES = {
    "generation": ("█", "cyan"),
    "preparation": ("▓", "yellow"),
    "training": ("▒", "green"),
    "weight sync": ("░", "magenta"),
    "other": ("▚", "blue"),
}
_PEAK = re.compile(r"(.+)/memory_peak_gib")


class Room(NamedTuple):
    """How much of each part is shown: rows, and of a prompt or a response lines."""

    numbers: int
    times: int
    alarms: int
    events: int
    lines: int


ROOMS = (Room(len(SHOWN), 12, 3, 6, 3), Room(10, 6, 3, 4, 2), Room(6, 4, 2, 3, 1), Room(4, 2, 1, 1, 1))


class RunPanel:
    """Live view of a state, in whatever room there is when it is drawn.

    Args:
        now: seconds since the epoch.
        height: lines that there are; None: any number.
    """

    def __init__(self, state: RunState, now: float, height: int | None = None) -> None:
        self.state = state
        self.now = now
        self.height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.segments(console, options)

    def segments(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Yield what is drawn."""
        # Whoever prints a line above it may have told the console to wrap nothing.
        options = options.update(no_wrap=False, overflow=None)
        for room in ROOMS:
            lines = console.render_lines(panel(self.state, options.max_width, self.now, room), options, pad=False)
            if self.height is None or len(lines) <= self.height:
                break
        for line in lines:
            yield from line
            yield Segment.line()


def panel(state: RunState, width: int, now: float, room: Room = ROOMS[0]) -> RenderableType:
    """Draw a state in a width, at a time."""
    width = max(NARROWEST, width)
    parts: list[RenderableType] = [*_head(state, width, now)]
    numbers = _numbers(state, width, room.numbers)
    times = _times(state, width if width < TWO_COLUMNS else width // 2, room.times)
    if width >= TWO_COLUMNS and numbers and times:
        side_by_side = Table.grid(padding=(0, 2), expand=True)
        side_by_side.add_column(ratio=1)
        side_by_side.add_column(ratio=1)
        side_by_side.add_row(Group(*numbers), Group(*times))
        parts.append(side_by_side)
    else:
        parts += [*numbers, *times]
    parts += _memory(state)
    parts += _told("alarms", list(state.alarms)[-room.alarms :], width, room.lines)
    parts += _told("events", list(state.events)[-room.events :], width, room.lines)
    if state.sample is not None:
        parts += [_rule(f"a row of step {state.sample['step']}"), sample(state.sample, width, room.lines)]
    return Group(*parts)


def duration(seconds: float | None) -> str:
    """Write seconds as 1:02:03; "?": they are not known."""
    if seconds is None or not 0 <= seconds < 1e9:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _head(state: RunState, width: int, now: float) -> Iterator[RenderableType]:
    title = cell(state.name[:NAME], "bold")
    title.truncate(max(1, width - 14), overflow="ellipsis")
    title.append(" · ")
    title.append(one_line(state.status[:NAME]), STATUS.get(state.status, "red"))
    yield Rule(title, align="left", style="dim")
    if state.error.strip():
        yield cut(state.error.strip().splitlines()[0], width, 2, "red")
    yield _progress(state, width)
    if not state.newest and not state.has_ended:
        yield Text("no step is done yet", "dim")
    elif state.newest_at and not state.has_ended:
        yield Text(f"step {state.done} under way for {duration(max(0.0, now - state.newest_at))}", "dim")


def _progress(state: RunState, width: int) -> RenderableType:
    steps = f"{state.done}/{'?' if state.steps is None else state.steps} steps"
    left = "" if state.has_ended or not state.newest else f", {duration(state.seconds_left())} left"
    clock = f"{duration(state.seconds())}{left}"
    bar = min(LONGEST_BAR, width - len(steps) - len(clock) - 2)
    row = Table.grid(padding=(0, 1))
    if bar < len(clock) // 2:  # too narrow for one
        return Text(f"{steps} {clock}")
    row.add_row(steps, ProgressBar(total=max(1, state.steps or 1), completed=state.done, width=bar), clock)
    return row


def _numbers(state: RunState, width: int, most: int) -> list[RenderableType]:
    """Draw the numbers that the run has, with their course."""
    room = width if width < TWO_COLUMNS else width // 2
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="cyan", no_wrap=True)
    shown = [(metric, state.series(metric.name)) for metric in SHOWN]
    rows = [(metric, series) for metric, series in shown if _worth_showing(metric, series)][:most]
    for metric, series in rows:
        last = series[-1][1]
        by_number = [(at, value) for at, (_, value) in enumerate(series)]  # validations are far from each other
        points = by_number if metric.name.startswith("validation/") else series
        value = Text("not finite", "red") if last is None else Text(metric.written(last))
        table.add_row(metric.label, value, sparkline(points, max(4, min(LONGEST_LINE, room - 28))))
    return [table] if rows else []


def _worth_showing(metric: ShownMetric, series: Sequence[tuple[int, float | None]]) -> bool:
    values = [value for _, value in series]
    return any(values) if metric.unless_zero else any(value is not None for value in values)


def _times(state: RunState, width: int, most: int) -> list[RenderableType]:
    """Draw where the time of the newest step went."""
    times = phase_times(state.newest)
    step = step_seconds(state.newest)
    if not times or not step:
        return []
    total = max(step, sum(time.seconds for time in times))
    table = Table.grid(padding=(0, 1))
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="dim")
    longest = sorted(times, key=lambda time: -time.seconds)[:most]
    for time in (time for time in times if time in longest):
        mark, style = PHASE_STYLES[time.phase]
        share = f"{time.seconds / step:.0%}"
        table.add_row(Text(mark, style), time.phase, cell(time.role[:24], "dim"), _seconds(time.seconds), share)
    for pool, seconds in idle_seconds(state.newest).items():
        table.add_row("", "idle", cell(pool[:24], "dim"), _seconds(seconds), f"{seconds / step:.0%}")
    head = Text(f"step {state.done - 1} took {_seconds(step)}", "dim")
    return [head, _bar(times, total, max(8, min(48, width - 4))), table]


def _bar(times: Sequence[PhaseTime], total: float, width: int) -> Text:
    """Draw times as parts of a bar; where each of them ends is exact to a character."""
    bar = Text(no_wrap=True, overflow="crop")
    place = 0
    ended = 0.0
    for time in times:
        ended += time.seconds
        end = round(width * ended / total)
        mark, style = PHASE_STYLES[time.phase]
        bar.append(mark * (end - place), style)
        place = end
    bar.append("·" * (width - place), "dim")
    return bar


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.3g} s"


def _memory(state: RunState) -> list[RenderableType]:
    peaks = [(_PEAK.fullmatch(name), finite(value)) for name, value in state.newest.items()]
    roles = [f"{one_line(found.group(1)[:24])} {peak:.2f}" for found, peak in peaks if found and peak is not None]
    return [Text(f"memory peaks of a rank, GiB: {' · '.join(roles)}", "dim")] if roles else []


def _told(title: str, events: Sequence[Record], width: int, lines: int) -> list[RenderableType]:
    if not events:
        return []
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    for event in events:
        words, style = in_words(event)
        table.add_row(time_of(event), cut(words, width - TIME, lines, style))
    return [_rule(title), table]


def _rule(title: str) -> Rule:
    return Rule(Text(title, "dim"), align="left", style="dim", characters="╌")
