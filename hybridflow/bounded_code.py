"""Bounds on code of others that runs in this process: a deadline, by the alarm of the process, and no end of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

LIBRARY = os.path.dirname(os.__file__) + os.sep


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block if it takes longer. Outside of the main thread, where no alarm rings, nothing.

    Whoever catches it in the block, as around the import of something optional, gets it at the end all the same. An
    alarm that somebody else has set is set again then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    late: list[TimeoutError] = []

    def ring(signal_number: int, frame: FrameType | None) -> None:
        late.append(TimeoutError(f"it took longer than {seconds:g} s"))
        raise late[0]

    before = signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)
    if late:
        raise late[0]


@contextmanager
def kept_alive() -> Iterator[None]:
    """Let code that ends this process at once, by `os._exit`, be told of like code that raises SystemExit.

    The exit status would else be that code's, and so perhaps that of a command that has done what it was asked for.
    """
    own = os._exit
    here = os.getpid()
    over = False

    def refuse(status: int) -> NoReturn:
        if over or os.getpid() != here:  # somebody imported it by its name; a process that was forked ends so
            own(status)
        raise SystemExit(f"os._exit({status}) would have ended the process")

    os._exit = refuse
    try:
        yield
    finally:
        over = True
        os._exit = own


@contextmanager
def told_where(say: Callable[[str], None], after_s: float = 10.0) -> Iterator[None]:
    """Say after some seconds at which line of a user's own code this thread is; if it is in ours, say nothing.

    Such code may rightly take long before a run, or for ever: there is no deadline that would be right.
    """
    thread = threading.get_ident()

    def tell() -> None:
        place = _line_of_users(sys._current_frames().get(thread))
        if place:
            say(f"for {after_s:g} s now: {place} (before the start; Ctrl-C ends it)")

    timer = threading.Timer(after_s, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _line_of_users(frame: FrameType | None) -> str:
    """Return where a thread is, as FILE:LINE, FUNCTION, leaving libraries out; "" if that is in code of ours."""
    ours = os.path.dirname(__file__) + os.sep
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(ours):
            return ""
        if not file.startswith((LIBRARY, "<")) and "site-packages" not in file:
            return f"{file}:{frame.f_lineno}, {frame.f_code.co_name}"
        frame = frame.f_back
    return ""
