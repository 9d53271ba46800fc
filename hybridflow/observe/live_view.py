"""The live view: a panel that moves on a terminal, a line with its time now and then elsewhere; a table at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from threading import RLock

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live as RichLive
from rich.segment import Segment
from rich.table import Table

from hybridflow.observe import logs, terminal
from hybridflow.observe.json_lines import Record
from hybridflow.observe.run_panel import RunPanel
from hybridflow.observe.run_state import FollowedRun, RunState
from hybridflow.observe.shown_metrics import SHOWN
from hybridflow.observe.terminal import cell, one_line

LINE_EVERY_S = 10.0  # between lines where no panel moves
LOOK_EVERY_S = 0.5  # between looks at the files of a run
REDRAWN_PER_S = 1
CLOCK_S = 5.0  # after which the time that a step has taken is drawn anew
NOT_MOVING = ("dumb", "unknown")  # terminals, by TERM


class Live:
    """Live view of a run on standard output.

    Args:
        every_step: a line for each step, whether a panel moves or not.
        with_times: where no panel can move, lines begin with the time.
    """

    def __init__(self, *, every_step: bool = False, with_times: bool = False) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._every_step = every_step
        self._with_times = with_times
        self._run: FollowedRun | None = None
        self._shown: RichLive | None = None
        self._lock = RLock()  # of the state, which another thread draws; held around nothing that draws
        self._last_line = 0.0
        self._last_look = 0.0

    def say(self, text: str) -> None:
        """Print a line, above the panel if one moves. The log file has it too."""
        logs.said.info(one_line(text))
        if self._shown is not None:
            self.console.print(cell(text))
            return
        now = time.strftime(f"{logs.LINE_TIME} ") if self._with_times and not panel_moves() else ""
        terminal.say(now + one_line(text))

    @contextmanager
    def showing(self, run: FollowedRun) -> Iterator[None]:
        """Show the state of a run in the block; what is told of its steps meanwhile is drawn."""
        self._run = run
        if not panel_moves():
            yield
            return
        drawn = _Drawn(run.state, self._lock)
        to_screen = sys.stderr.isatty()  # else a file has the errors
        self._shown = RichLive(drawn, console=self.console, refresh_per_second=REDRAWN_PER_S, redirect_stderr=to_screen)
        try:
            with self._shown:
                yield
        finally:
            self._shown = None

    def take_step(self, step: int, metrics: Mapping[str, object]) -> None:
        """Take in the metrics of a step. Its number, from 0, is that of the files and of errors."""
        assert self._run is not None, "steps are taken while a run is showing"
        with self._lock:
            self._run.state.take_metrics({"step": step, **metrics}, time.time())
            if time.monotonic() - self._last_look > LOOK_EVERY_S:
                self._last_look = time.monotonic()
                self._run.look()
        self.tell_step()

    def take_validation(self, step: int, metrics: Mapping[str, object]) -> None:
        """Take in the metrics of a validation before a step; the trainer says in words how it went."""
        assert self._run is not None, "validations are taken while a run is showing"
        with self._lock:
            self._run.state.take_metrics({"step": step, **metrics}, time.time())

    def look(self) -> list[Record]:
        """Take in what the files of the run have that is new; return the events of it."""
        assert self._run is not None, "files are looked at while a run is showing"
        with self._lock:
            self._run.look_at_record()
            return self._run.look()

    def end(self, status: str) -> None:
        """Take in how a run ends that is this process's own, whose record says so later."""
        assert self._run is not None, "a run ends while it is showing"
        with self._lock:
            self._run.look()
            self._run.state.status = status
            self._run.state.newest_at = 0.0

    def tell_step(self) -> None:
        """Print the line of the newest step, unless a panel shows it, or the last line was a moment ago."""
        assert self._run is not None, "steps are told while a run is showing"
        state = self._run.state
        in_time = self._shown is None and time.monotonic() - self._last_line > LINE_EVERY_S
        at_an_end = self._shown is None and state.done in (1, state.steps)
        if self._every_step or in_time or at_an_end:
            self._last_line = time.monotonic()
            self.say(step_line(state))

    def table(self, title: str, rows: Mapping[str, str]) -> None:
        """Print a short table."""
        table = Table(title=cell(title, "table.title"), show_header=False, title_justify="left")
        for name, value in rows.items():
            table.add_row(cell(name), cell(value))
        terminal.draw(self.console, table)


class _Drawn:
    """Panel of a state that changes on another thread. It is made anew where that has changed, or the clock went on:
    to make one takes tens of milliseconds, of a process that has a run to control.
    """

    def __init__(self, state: RunState, lock: AbstractContextManager[object]) -> None:
        self._state = state
        self._lock = lock
        self._segments: list[Segment] = []
        self._made_of: tuple[object, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            now = time.time() // CLOCK_S * CLOCK_S
            made_of = (self._state.changes, self._state.status, options.max_width, console.height, now)
            if made_of != self._made_of:
                panel = RunPanel(self._state, now, console.height)
                self._segments = list(panel.segments(console, options))
                self._made_of = made_of
            segments = self._segments
        yield from segments


def step_line(state: RunState) -> str:
    """Return what a line says of the newest step."""
    step = state.done - 1
    known = [(metric, state.last(metric.name)) for metric in SHOWN if metric.in_line]
    told = [metric.in_words(value) for metric, value in known if value or (value == 0 and not metric.unless_zero)]
    left = state.seconds_left()
    steps = "" if state.steps is None else f"/{state.steps}"
    rest = [] if left is None else [f"{left:.0f} s left"]
    return " · ".join([f"step {step} ({state.done}{steps} done)", *told, *rest])


def panel_moves() -> bool:
    """Tell whether standard output is a terminal on which a panel can move, and of an encoding that has its bars."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return sys.stdout.isatty() and os.environ.get("TERM") not in NOT_MOVING and encoding.startswith("utf")
