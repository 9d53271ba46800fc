"""Ctrl-C, SIGTERM and a terminal that hangs up end a run in order, wherever they arrive; under nohup it goes on.

Python raises KeyboardInterrupt in whatever the main thread happens to run. If that is a finalizer or a callback from
Ray's C++ code, the exception is reported as ignored and lost. So the signal is also remembered, and `check`, which the
supervisor calls around every wait, raises it again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_arrived = threading.Event()


@contextmanager
def heeded() -> Iterator[None]:
    """Let signals raise KeyboardInterrupt, and remember them, in a block on the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _arrived.clear()
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as nohup leaves it
    numbers = [number for number in SIGNALS if not (ignored and number == signal.SIGHUP)]
    before = {number: signal.signal(number, _raise) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _arrived.clear()


@contextmanager
def by_ray() -> Iterator[None]:
    """Turn Ray's own answer to SIGTERM, which is SystemExit, into a KeyboardInterrupt too."""
    try:
        yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop


def arrived() -> bool:
    """Tell whether a signal has arrived, so that this process leaves its cluster."""
    return _arrived.is_set()


def check() -> None:
    """Raise KeyboardInterrupt if a signal has arrived, also if it was raised before and got lost."""
    if _arrived.is_set():
        raise KeyboardInterrupt


def _raise(number: int, frame: FrameType | None) -> None:
    _arrived.set()
    raise KeyboardInterrupt
