"""Process beside a rank that runs a user's code for it, as the rank sees it: a grader's, or an environment's.

What it runs may hang, crash and start other processes; all of that ends with it, and it with the rank.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

from hybridflow import interrupt
from hybridflow.errors import HybridFlowError
from hybridflow.observe.exit_codes import describe_exit
from hybridflow.tasks.grading_channel import Channel, Place

START_S = 600.0  # for the user's modules to be imported
REAPED_WITHIN_S = 5.0


class ChildProcess:
    """Process that runs `python -m MODULE`, which calls `child_main.serve`, from its start to its end.

    Args:
        what: what it does and what it is to import, for messages: ("that grades", "the graders").
        told: what it is told first, with `where_modules_are`; plain JSON.

    Attributes:
        channel: to talk with it. Its `receive` raises EOFError once the process has died.
        place: a number that outlives it.
        end: ends it and all that it has started.
    """

    def __init__(self, module: str, what: tuple[str, str], told: Mapping[str, Any]) -> None:
        self._what = what
        ours, theirs = socket.socketpair()
        shared = Place.make()
        self.place = Place(shared)
        lifeline, held = os.pipe()
        passed = [theirs.fileno(), shared, lifeline]
        with theirs, interrupt.blocked():
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, passed)],
                stdin=subprocess.DEVNULL,
                pass_fds=passed,
                start_new_session=True,  # what it starts ends with it; Ctrl-C is the run's affair
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        os.close(shared)
        os.close(lifeline)
        self.channel = Channel(ours)
        self._ready = False
        self._starts_by = monotonic() + START_S
        self.end = weakref.finalize(self, _end, self._process, ours, held)
        with suppress(EOFError):  # that it has died is told where it is asked for something
            self.channel.send(told)

    def wait_until_ready(self) -> None:
        """Wait until it has imported what it runs. Raises HybridFlowError if it cannot."""
        while not self.is_ready(START_S):
            pass

    def is_ready(self, within_s: float) -> bool:
        """Tell whether it has imported what it runs, or does within these seconds. Raises as `wait_until_ready`."""
        if self._ready:
            return True
        does, imports = self._what
        try:
            answer = self.channel.receive(within_s)
        except (EOFError, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            if late and monotonic() < self._starts_by:
                return False
            problem = "it took too long" if late else self.death()
            raise HybridFlowError(f"the process {does} did not start: {problem}") from error
        if "failed" in answer:
            raise HybridFlowError(f"the process {does} cannot import {imports}: {answer['failed']}")
        self._ready = True
        return True

    @property
    def has_died(self) -> bool:
        """Tell whether it has ended by itself after it was ready."""
        return self._ready and self._process.poll() is not None

    def death(self, known: str = "") -> str:
        """Describe how it ended, if that is not known; end it if it has not."""
        if known:
            self.end()
            return known
        try:
            code = self._process.wait(REAPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.end()
            return "it closed its channel"
        self.end()
        return describe_exit(code)


def where_modules_are() -> dict[str, Any]:
    """Return where this process finds modules, for the other to find the same."""
    return {"path": sys.path, "pythonpath": os.environ.get("PYTHONPATH", "")}


def _end(process: subprocess.Popen[bytes], end: socket.socket, held: int) -> None:
    """End a process and whatever it has started: its guard does so as the lifeline is let go, or the kernel.

    It waits for a while at most: an exception from a signal handler in Popen's `poll` may have left its lock held.
    """
    os.close(held)
    try:
        process.wait(REAPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(REAPED_WITHIN_S)
    end.close()
