"""The live view of a run as rich draws it: a pure function of its state, of a width and of a time.

What comes from a model, a file or a name is escaped and cut: it moves no cursor, is no markup and fills no screen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from hybridflow.observe.event_words import in_words, time_of
from hybridflow.observe.run_records import Record, finite
from hybridflow.observe.run_state import RunState
from hybridflow.observe.shown_metrics import SHOWN, ShownMetric
from hybridflow.observe.sparkline import sparkline
from hybridflow.observe.step_phases import PhaseTime, idle_seconds, phase_times, step_seconds
from hybridflow.observe.terminal import cell, one_line

NARROWEST = 20
TWO_COLUMNS = 96  # characters from which numbers and times stand side by side
LONGEST_LINE = 40  # of a sparkline
LOW = 30  # lines of a terminal below which less is shown
NAME = 200  # characters of a name or an error
SAMPLE_LINES = 3  # of a prompt, and of a response
STATUS = {"running": "green", "starting": "yellow", "ended": "blue"}
PHASE_STYLES = {
    "generation": ("█", "cyan"),
    "preparation": ("▓", "yellow"),
    "training": ("▒", "green"),
    "weight sync": ("░", "magenta"),
    "other": ("▚", "blue"),
}
_PEAK = re.compile(r"(.+)/memory_peak_gib")


class RunPanel:
    """Live view of a state, in whatever room the terminal has when it is drawn."""

    def __init__(self, state: RunState, now: float) -> None:
        self.state = state
        self.now = now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = console.size.height if console.is_terminal else 0
        drawn = panel(self.state, options.max_width, self.now, height=height)
        # Whoever prints a line above it may have told the console to wrap nothing.
        yield from console.render(drawn, options.update(no_wrap=False, overflow=None))


def panel(state: RunState, width: int, now: float, *, height: int = 0) -> RenderableType:
    """Draw a state in a width.

    Args:
        now: seconds since the epoch.
        height: lines that there are; 0: any number.
    """
    width = max(NARROWEST, width)
    low = 0 < height < LOW
    parts: list[RenderableType] = [*_head(state, width, now)]
    numbers = _numbers(state, width, most=6 if low else len(SHOWN))
    times = _times(state, width if width < TWO_COLUMNS else width // 2, most=4 if low else 12)
    if width >= TWO_COLUMNS and numbers and times:
        side_by_side = Table.grid(padding=(0, 2), expand=True)
        side_by_side.add_column(ratio=1)
        side_by_side.add_column(ratio=1)
        side_by_side.add_row(Group(*numbers), Group(*times))
        parts.append(side_by_side)
    else:
        parts += [*numbers, *times]
    parts += [*_memory(state), *_alarms(state, 2 if low else 3), *_events(state, 3 if low else 6)]
    parts += _sample(state, width, 1 if low else SAMPLE_LINES)
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
        yield _cut(state.error.strip().splitlines()[0], width, 2, "red")
    steps = "?" if state.steps is None else str(state.steps)
    row = Table.grid(padding=(0, 1))
    row.add_row(
        Text(f"{state.done}/{steps} steps", no_wrap=True),
        ProgressBar(total=max(1, state.steps or 1), completed=state.done, width=max(4, min(40, width - 32))),
        _clock(state),
    )
    yield row
    if not state.newest and not state.has_ended:
        yield Text("no step is done yet", "dim")
    elif state.newest_at and not state.has_ended:
        yield Text(f"step {state.done} under way for {duration(max(0.0, now - state.newest_at))}", "dim")


def _clock(state: RunState) -> Text:
    so_far = duration(state.seconds())
    left = "" if state.has_ended or not state.newest else f", {duration(state.seconds_left())} left"
    return Text(f"{so_far}{left}", no_wrap=True)


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


def _alarms(state: RunState, most: int) -> list[RenderableType]:
    return _told("alarms", list(state.alarms)[-most:])


def _events(state: RunState, most: int) -> list[RenderableType]:
    return _told("events", list(state.events)[-most:])


def _told(title: str, events: Sequence[Record]) -> list[RenderableType]:
    if not events:
        return []
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for event in events:
        words, style = in_words(event)
        table.add_row(time_of(event), cell(words[:NAME], style))
    return [_rule(title), table]


def _sample(state: RunState, width: int, lines: int) -> list[RenderableType]:
    row = state.sample
    if row is None:
        return []
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    room = max(8, width - 10)
    for name in ("prompt", "response", "rejected"):
        if row.get(name) is not None:
            table.add_row(name, _cut(str(row[name]), room, lines))
    grades = " · ".join(_grades(row))
    table.add_row("grades", _cut(grades, room, 2, "bold"))
    return [_rule(f"a row of step {row['step']}"), table]


def _grades(row: Record) -> Iterator[str]:
    """Yield what a row was given, the one number first, then those of each grader."""
    yield f"reward {_number(row['rewards'])}" if "rewards" in row else "not graded"
    if "costs" in row:
        yield f"cost {_number(row['costs'])}"
    grades = row.get("grades")
    for name, grade in grades.items() if isinstance(grades, dict) else ():
        yield f"{name} {_number(grade)}"
    for name in ("answer", "finish_reason", "environment_failure"):
        if row.get(name) not in (None, ""):
            yield f"{name.replace('_', ' ')} {str(row[name])[:NAME]}"


def _number(value: object) -> str:
    number = finite(value)
    return "none" if number is None else f"{number:.4g}"


def _cut(text: str, width: int, lines: int, style: str = "") -> Text:
    """Escape a text and cut it to so many lines of a width; the last one says how much is missing."""
    most = lines * width
    escaped = one_line(text[:most])
    left_out = len(text) - min(len(text), most)
    pieces = chop_cells(escaped, width) if escaped else [""]
    if len(pieces) > lines:
        left_out += sum(map(len, pieces[lines:]))
        pieces = pieces[:lines]
    if left_out:
        more = f"… +{left_out}"
        while pieces[-1] and cell_len(pieces[-1]) + len(more) > width:
            pieces[-1] = pieces[-1][:-1]
        pieces[-1] += more
    return Text("\n".join(pieces), style=style, no_wrap=True, overflow="crop")


def _rule(title: str) -> Rule:
    return Rule(Text(title, "dim"), align="left", style="dim", characters="╌")
