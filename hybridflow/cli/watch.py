"""`hybridflow watch`: the live view of a run, from its folder alone; nothing of it is changed or locked."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from rich.console import Console

from hybridflow.errors import ConfigError, HybridFlowError, counted
from hybridflow.observe import terminal
from hybridflow.observe.event_words import in_words
from hybridflow.observe.live_view import LOOK_EVERY_S, Live, panel_moves
from hybridflow.observe.run_alarms import alarms_of_run, tells_alarms
from hybridflow.observe.run_folder import EVALUATION
from hybridflow.observe.run_panel import RunPanel
from hybridflow.observe.run_records import find_run, read_records
from hybridflow.observe.run_state import FollowedRun, RunState
from hybridflow.observe.terminal import one_line

WAIT_S = 60.0  # for a folder that is not there: a run makes its own when its settings are checked
FAILED = 1


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow watch ARGV` and return the exit status.

    0 for a run that came to its end and is well, or that goes on while nobody reads any more; 1 for one that failed, or
    was interrupted or killed.

    Raises ConfigError for what is no run.
    """
    parser = argparse.ArgumentParser(
        prog="hybridflow watch",
        description="Show a run that goes on, until it ends, or the last state of one that has ended.",
        epilog="Exit status: 0, the run has ended; 1, it failed, was interrupted or killed, or has learned nothing; 2, "
        "there is no run.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, as runs/mine")
    state = watch(_trained(parser.parse_args(argv).run))
    ended_well = state.status == "ended" and not state.error
    return 0 if ended_well or not state.has_ended else FAILED


def watch(path: Path) -> RunState:
    """Show the run in a folder until it has ended, or nobody reads that any more; then its last state stays.

    Returns that state.

    Raises HybridFlowError if the folder is gone meanwhile.
    """
    state = RunState(path.name)
    followed = FollowedRun(path, state)
    followed.look_at_record()
    if not tells_alarms(followed.look()):
        state.alarms.clear()
        for alarm in alarms_of_run(read_records(path)):
            state.take_event(alarm)
    if not state.has_ended:
        _follow(followed, Live(with_times=True))
        if panel_moves():  # it has stayed on the screen
            return state
    terminal.draw(Console(highlight=False), RunPanel(state, time.time()), has_edge=True)
    return state


def _follow(followed: FollowedRun, live: Live) -> None:
    state = followed.state
    if not panel_moves():
        live.say(f"{state.name} is {state.status}, after {counted(state.done, 'step')}")
    with live.showing(followed):
        while not state.has_ended and terminal.is_read(sys.stdout):
            time.sleep(LOOK_EVERY_S)
            before = state.done
            events = live.look()
            if not followed.path.is_dir():
                raise HybridFlowError(f"{followed.path}: somebody moved or removed this run folder")
            for event in events:
                if not panel_moves():
                    live.say(in_words(event)[0])
            if state.done > before:
                live.tell_step()


def _trained(place: str) -> Path:
    """Return the folder of a run that trains. Raises ConfigError if there is none at a place."""
    path = find_run(place) if Path(place).exists() else _awaited(place)
    if (path / EVALUATION).is_file() and not (path / "metrics.jsonl").is_file():
        raise ConfigError(one_line(f"{place} is an evaluation, which has no steps: see {path / EVALUATION}"))
    return path


def _awaited(place: str) -> Path:
    """Return the folder of a run once it is there: whoever starts both at once may look for it too early.

    Raises ConfigError if it does not come in time.
    """
    Live(with_times=True).say(
        f"{place} is not there yet: waiting {WAIT_S:.0f} s for a run that begins{_meant(Path(place))}"
    )
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until and terminal.is_read(sys.stdout):
        time.sleep(LOOK_EVERY_S)
        with suppress(ConfigError):
            return find_run(place)
    return find_run(place)


def _meant(path: Path) -> str:
    """Suggest the run beside a path that has nearly its name."""
    there = [folder.name for folder in path.parent.iterdir() if folder.is_dir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, there, n=1)
    return f"; there is {path.parent / near[0]}" if near else ""
