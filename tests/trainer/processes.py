"""A run and everything that it starts: found by a mark in the environment, whatever session it moves to."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.forked_ranks import ALONE, command

NAME = "HYBRIDFLOW_TEST_RUN"
_alone: dict[int, Path] = {}  # by mark, where the numbers of forks are that do not end with whoever asked for them


def marked(mark: int) -> list[psutil.Process]:
    """Processes that a run's session still has, or that were started by it and have moved to one of their own."""
    forks = [int(file.name) for file in _alone[mark].iterdir()] if mark in _alone else []
    found = [psutil.Process(pid) for pid in forks if psutil.pid_exists(pid)]
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


def exposed(mark: int) -> list[str]:
    """Where they listen for other machines."""
    found = []
    for process in marked(mark):
        try:
            sockets = process.net_connections("inet")
        except psutil.Error:
            continue
        here = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
        listening = [one.laddr for one in sockets if one.status == psutil.CONN_LISTEN]
        found += [f"{process.name()}: {address}" for address in listening if address.ip not in here]
    return found


def kill(mark: int) -> None:
    """End all of them at once, as a machine does that is switched off."""
    for process in marked(mark):
        try:
            process.kill()
        except psutil.Error:
            continue


def start(arguments: list[str], cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """`hybridflow ARGUMENTS` in a session of its own, so that a signal reaches it and what it started.

    Args:
        environment: beside ours. That of `forks` forks the run's ranks, and the driver too unless the run is marked:
            who ends a driver needs one as users have it.
    """
    return subprocess.Popen(
        command("hybridflow", *arguments, environment={} if NAME in environment else environment),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )


def start_marked(arguments: list[str], cwd: Path, **environment: str) -> tuple[subprocess.Popen[str], int]:
    """Start a run whose processes all carry a mark of their own in their environment.

    Of a forked rank, whoever asked for it does: it is there for as long as the rank is. Ranks that are alone, in the
    folder that ALONE is, are counted themselves.
    """
    mark = time.monotonic_ns()
    if ALONE in environment:
        _alone[mark] = Path(environment[ALONE])
    return start(arguments, cwd, **environment, **{NAME: str(mark)}), mark


def wait_until_saved(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Until the run has saved that step."""
    wait_until(process, (folder / "checkpoints" / f"step-{step:06d}").exists)


def wait_until(process: subprocess.Popen[str], far_enough: Callable[[], bool]) -> None:
    """Until the run has got far enough."""
    end = time.monotonic() + 200
    while not far_enough():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < end, "the run did not get so far"
        time.sleep(0.05)


def gone_within(mark: int, seconds: float) -> list[str]:
    """What is left of them after so long at most."""
    end = time.monotonic() + seconds
    while left_of(mark) and time.monotonic() < end:
        time.sleep(0.2)
    return left_of(mark)


def kill_driver(process: subprocess.Popen[str], mark: int) -> None:
    """Kill a run's driver, which leaves nothing of the run."""
    process.kill()
    process.communicate(timeout=60)
    assert not gone_within(mark, 30.0)
