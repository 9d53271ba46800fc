"""Bounds on code of others that runs in this process: a deadline, by the alarm of the process, and no end of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block if it takes longer. Outside of the main thread, where no alarm rings, nothing.

    An alarm that somebody else has set is set again at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signal_number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def kept_alive() -> Iterator[None]:
    """Let code that ends this process at once, by `os._exit`, be told of like code that raises SystemExit.

    The exit status would else be that code's, and so perhaps that of a command that has done what it was asked for.
    """
    own = os._exit
    here = os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != here:  # a process that was forked from this one ends so
            own(status)
        raise SystemExit(f"os._exit({status}) would have ended the process")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = own
