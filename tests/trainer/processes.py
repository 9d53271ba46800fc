"""A run and everything that it starts: found by a mark in the environment, whatever session it moves to."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from tests.trainer.conftest import start

NAME = "HYBRIDFLOW_TEST_RUN"


def marked(mark: int) -> list[psutil.Process]:
    """Processes that a run's session still has, or that were started by it and have moved to one of their own."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(NAME) == str(mark):
                found.append(process)
        except psutil.Error:
            continue
    return found


def left_of(mark: int) -> list[str]:
    """Their command lines."""
    found = []
    for process in marked(mark):
        try:
            found.append(" ".join(process.cmdline())[:80])
        except psutil.Error:
            continue
    return found


def kill(mark: int) -> None:
    """End all of them at once, as a machine does that is switched off."""
    for process in marked(mark):
        try:
            process.kill()
        except psutil.Error:
            continue


def start_marked(arguments: list[str], cwd: Path, monkeypatch: pytest.MonkeyPatch):
    """Start a run whose processes all carry a mark of their own in their environment."""
    mark = time.monotonic_ns()
    monkeypatch.setenv(NAME, str(mark))
    process = start(arguments, cwd)
    monkeypatch.delenv(NAME)
    return process, mark


def gone_within(mark: int, seconds: float) -> list[str]:
    """What is left of them after so long at most."""
    end = time.monotonic() + seconds
    while left_of(mark) and time.monotonic() < end:
        time.sleep(0.2)
    return left_of(mark)
