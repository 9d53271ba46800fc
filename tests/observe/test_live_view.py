"""The live view: a panel where one can move, elsewhere lines with their time, and one number for each step."""

from __future__ import annotations

import io
import re
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from hybridflow.observe import live_view, terminal
from hybridflow.observe.live_view import Live, panel_moves
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.run_panel import RunPanel
from hybridflow.observe.run_state import FollowedRun, RunState
from tests.observe.test_terminal import HOSTILE, NAMES

TIME = re.compile(r"^\d\d-\d\d \d\d:\d\d:\d\d ", re.MULTILINE)


def followed(folder: Path, steps: int = 3) -> FollowedRun:
    return FollowedRun(folder, RunState("mine", steps), metrics=False)


def lines_of(out: str) -> list[str]:
    """What was said, without its times, which every line has."""
    assert len(TIME.findall(out)) == len(out.splitlines())
    return TIME.sub("", out).splitlines()


def test_a_step_has_the_number_that_files_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(every_step=True, with_times=True)
    with live.showing(followed(tmp_path)):
        live.take_step(0, {"reward/mean": 0.5, "perf/tokens_per_s": 10.0, "timing_s/step": 1.0})
    assert lines_of(capsys.readouterr().out) == ["step 0 (1/3 done) · reward 0.500 · 10 tokens/s · 2 s left"]


def test_a_step_shows_costs_pairs_and_grades_that_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(every_step=True, with_times=True)
    with live.showing(followed(tmp_path)):
        live.take_step(0, {"reward/mean": 0.5, "cost/mean": 0.0, "reward/failed_share": 0.0, "timing_s/step": 1.0})
        live.take_validation(1, {"validation/accuracy": 0.5})
        live.take_step(1, {"reward/mean": float("nan"), "reward/failed_share": 0.125})
        live.take_step(2, {"actor/dpo_loss": 0.6931, "actor/dpo_accuracy": 0.5, "timing_s/step": 1.0})
    assert lines_of(capsys.readouterr().out) == [
        "step 0 (1/3 done) · reward 0.500 · cost 0.000 · 2 s left",
        "step 1 (2/3 done) · failed grades 12.5%",
        "step 2 (3/3 done) · loss 0.693 · accuracy 0.500 · 0 s left",
    ]


def test_lines_are_sparse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(with_times=True)
    with live.showing(followed(tmp_path, 100)):
        for step in range(100):
            live.take_step(step, {})
        monkeypatch.setattr(live_view, "LINE_EVERY_S", 0.0)
        live.take_step(50, {})
    told = [line.split(" ·")[0] for line in lines_of(capsys.readouterr().out)]
    assert told == ["step 0 (1/100 done)", "step 99 (100/100 done)", "step 50 (51/100 done)"]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal on which a panel moves."""
    monkeypatch.setattr(live_view, "panel_moves", lambda: True)
    return io.StringIO()


def on(screen: io.StringIO, live: Live) -> Live:
    live.console = Console(file=screen, force_terminal=True, color_system=None, width=100, height=50, highlight=False)
    return live


@pytest.mark.parametrize("name", [*NAMES, HOSTILE])
def test_the_panel_shows_names_as_they_are(name: str, screen: io.StringIO, tmp_path: Path) -> None:
    live = on(screen, Live())
    folder = RunFolder(tmp_path / "run")
    folder.write_config("")
    folder.event("checkpoint", step=name)
    with live.showing(FollowedRun(folder.path, RunState(name, 3), metrics=False)):
        live.say(name)
        live.take_step(0, {"reward/mean": 1.0})
    out = screen.getvalue()
    assert out.count(terminal.one_line(name)[:40]) >= 3
    assert not {"\x07", "\u202e", "\x9b", "\ud800"} & set(out)
    assert "step 0 (1/3" not in out and "1/3 steps" in out and "saved step" in out


def test_a_panel_with_every_step_has_lines_too(screen: io.StringIO, tmp_path: Path) -> None:
    live = on(screen, Live(every_step=True))
    with live.showing(followed(tmp_path)):
        live.take_step(0, {})
    assert "step 0 (1/3 done)" in screen.getvalue()


@pytest.mark.parametrize(
    ("is_terminal", "kind", "encoding", "moves"),
    [
        (True, "xterm-256color", "utf-8", True),
        (True, "xterm", "UTF8", True),
        (True, "dumb", "utf-8", False),
        (True, "xterm", "ascii", False),
        (True, "xterm", "latin-1", False),
        (False, "xterm", "utf-8", False),
    ],
)
def test_where_a_panel_moves(
    is_terminal: bool, kind: str, encoding: str, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", kind)
    assert panel_moves() is moves


def test_a_panel_is_made_anew_when_something_was_told(
    screen: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(live_view.time, "time", lambda: now[0])
    state = RunState("mine", 3)
    console = on(screen, Live()).console
    drawn = live_view._Drawn(state, threading.Lock())

    def shown() -> str:
        console.print(drawn)
        text = screen.getvalue()
        screen.truncate(screen.seek(0))
        return text

    made = []
    monkeypatch.setattr(live_view, "RunPanel", lambda *args: made.append(args) or RunPanel(*args))
    assert shown() == shown() and "no step is done yet" in shown() and len(made) == 1
    state.take_metrics({"step": 0, "reward/mean": 0.5}, 1000.0)
    assert "0.500" in shown() and len(made) == 2
    now[0] += live_view.CLOCK_S
    assert "under way for 0:05" in shown() and len(made) == 3
    state.take_event({"event": "checkpoint", "step": 1})
    state.status = "ended"
    assert "saved step 1" in shown() and "ended" in shown() and len(made) == 4


def test_errors_go_where_they_were_sent(screen: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the panel if that is the screen, else to the file that the user gave, `2> errors.txt`."""
    for is_terminal in (True, False):
        errors = io.StringIO()
        monkeypatch.setattr(errors, "isatty", lambda is_terminal=is_terminal: is_terminal)
        monkeypatch.setattr(sys, "stderr", errors)
        with on(screen, Live()).showing(followed(tmp_path)):
            terminal.complain("it failed")
        assert ("it failed" in errors.getvalue()) is not is_terminal
    assert screen.getvalue().count("it failed") == 1
