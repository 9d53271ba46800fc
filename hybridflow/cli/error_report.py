"""The report of a command that cannot go on, and its exit status. A traceback is there for the asking."""

from __future__ import annotations

import argparse
import os
import traceback
from pathlib import Path

import hybridflow
from hybridflow.errors import HybridFlowError
from hybridflow.observe import terminal
from hybridflow.observe.terminal import one_line

TRACEBACK = "HYBRIDFLOW_TRACEBACK"  # set to anything: what ends a command is shown with its traceback
LONGEST = 3000  # characters of a line
WRONG = 2  # the command, the settings or a file are wrong, and nothing was started


def tell(error: BaseException, command: str) -> int:
    """Say on standard error what ended a command before a run had started; return the exit status.

    A parser's SystemExit, which has said all, is raised again.
    """
    if isinstance(error, SystemExit) and _by_a_parser(error):
        raise error
    if os.environ.get(TRACEBACK):
        terminal.complain("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, HybridFlowError):
        text = str(error)
        status = error.exit_code
    else:
        text = unexpected(error)
        status = WRONG
    lines = [_shortened(line) for line in terminal.visible(text).split("\n")]
    message = f" {lines[0]}" if len(lines) == 1 else "".join(f"\n  {line}" for line in lines)
    terminal.complain(f"{command}:{message}")
    return status


def _shortened(line: str) -> str:
    """Leave the middle out of a line that nobody reads, as of an exception with a whole file in its words."""
    left = len(line) - LONGEST
    return line if left <= 0 else f"{line[: LONGEST // 2]} … ({left} characters) … {line[-LONGEST // 2 :]}"


def unexpected(error: BaseException) -> str:
    """Describe in one line an exception that is no message for the user: what, where, and how to see all of it."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return one_line(f"{os.fsdecode(error.filename)}: {error.strerror}")
    place = _place(error)
    message = f"unexpected {type(error).__name__}: {_text(error)}{f' ({place})' if place else ''}"
    return one_line(f"{message}; {TRACEBACK}=1 shows where it comes from")


def _text(error: BaseException) -> str:
    """Return an exception's own words, up to the first line break; one of a plugin may not even have any."""
    try:
        return str(error).strip().split("\n")[0] or "no message"
    except Exception:
        return "no message"


def _place(error: BaseException) -> str:
    """Name the innermost line that is ours or a plugin's, not a library's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and not frame.filename.startswith(("<", os.path.dirname(os.__file__)))
    ]
    if not frames:
        return ""
    above = Path(hybridflow.__file__).parents[1]
    file = Path(frames[-1].filename)
    return f"{file.relative_to(above) if file.is_relative_to(above) else file}:{frames[-1].lineno}"


def _by_a_parser(stop: SystemExit) -> bool:
    """Tell whether argparse ends the command: for `--help`, or for an argument that it has said is wrong."""
    frames = traceback.extract_tb(stop.__traceback__)
    return bool(frames) and frames[-1].filename == argparse.__file__
