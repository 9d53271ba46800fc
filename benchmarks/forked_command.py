"""The command, run in a process forked from this one, watched until it and all that it has started have ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

PR_SET_CHILD_SUBREAPER = 36
STARTED = 71  # exit status of a command that found nothing wrong
SETTLE_S = 1.0  # for processes that are ending when the command has ended


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status; -signal if a signal ended it, also ours at the limit.
        left: the command lines of processes that outlived it. They have been killed.
    """

    status: int
    seconds: float
    out: str
    err: str
    left: list[str]


def adopt_orphans() -> None:
    """Become the parent of what the processes that are started here leave behind, so that none is overlooked."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def run_forked(argv: Sequence[str], folder: Path, limit_s: float, environment: Mapping[str, str]) -> Ended:
    """Run `hybridflow ARGV` in a folder, at most so long."""
    out = folder.parent / f"{folder.name}.out"
    err = folder.parent / f"{folder.name}.err"
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        _command(argv, folder, out, err, environment)
    status = _wait(pid, began + limit_s)
    seconds = time.monotonic() - began
    left = _left()
    texts = [file.read_bytes().decode("utf-8", "replace") for file in (out, err)]
    for file in (out, err):
        file.unlink()
    return Ended(status, seconds, texts[0], texts[1], left)


def _command(argv: Sequence[str], folder: Path, out: Path, err: Path, environment: Mapping[str, str]) -> None:
    """Be the command; never returns."""
    status = 70
    try:
        os.setsid()
        os.chdir(folder)
        for number, file in ((1, out), (2, err)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ |= {"XDG_CACHE_HOME": str(folder / "cache"), **environment}
        sys.path.insert(0, str(folder))
        import ray

        from hybridflow.cli import main

        ray.init = _refuse_start
        try:
            status = main(list(argv))
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _refuse_start(*_: object, **__: object) -> NoReturn:
    """End the command where it would start its ranks: what is wrong should have been told before."""
    os.write(2, b"hybridflow would have started its processes\n")
    os._exit(STARTED)


def _wait(pid: int, until: float) -> int:
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -signal.SIGKILL
        time.sleep(0.01)


def _left() -> list[str]:
    """End the children that this process has, all of them orphans, and return what they were."""
    until = time.monotonic() + SETTLE_S
    while (children := _children()) and time.monotonic() < until:
        time.sleep(0.05)
    commands = []
    while children := _children():
        for child in children:
            with suppress(OSError):
                commands.append(Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
                os.kill(child, signal.SIGKILL)
        time.sleep(0.05)
    return commands


def _children() -> list[int]:
    """Return the living children of this process; those that have ended are reaped."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(child) for child in text.split()]
