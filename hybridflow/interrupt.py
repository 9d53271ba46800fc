"""Signals that end a command: Ctrl-C, SIGTERM, and a terminal that hangs up; under nohup the last one ends nothing.

A signal raises Stopped in whatever the main thread happens to run. In a `grace` the first one is only told and
remembered: the loop sees by `asked` that it should save and stop, and Stopped is raised once the time is over, or at
the next Ctrl-C.

While what was started is taken down (`shielded`), a signal waits: it would leave processes and folders behind, and
whoever is in a hurry sends two. Once a command has its status, one ends the process with that.

If the main thread happens to run a finalizer or a callback from Ray's C++ code, the exception is reported as ignored
and lost. So `check`, which the supervisor calls around every wait, raises it again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from queue import SimpleQueue
from time import monotonic
from types import FrameType, TracebackType

from hybridflow.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FROM_OUTSIDE = (signal.SIGTERM, signal.SIGHUP)  # Ray keeps SIGINT from its processes itself
ONE_PRESS_S = 0.2  # `timeout -s INT` sends it to its child and, at once, to the child's group
SHIELD_S = 10.0  # that taking down may take before a signal is heeded in it
OVER = b"\0"  # no signal has this number
LATER_S = 0.01  # so that a handler which is called because a time is over finds it over


@dataclass
class _State:
    """What has arrived, and what is allowed to go on all the same.

    Attributes:
        number: the first signal; 0: none.
        at_s: when it came.
        at_once: Ctrl-C came after it.
        grace_s: from the first signal on.
        heeded: whether the handlers are ours.
        shielded_until: until when nothing is raised.
        ends: the command has its status, which a signal does not change any more.
        told: to whoever tells a signal that comes in a grace; its `put` may interrupt another, as a handler does.
        counted: whether Python writes the numbers of signals into a pipe of ours.
    """

    number: int = 0
    at_s: float = 0.0
    at_once: bool = False
    grace_s: float = 0.0
    heeded: bool = False
    shielded_until: float = 0.0
    ends: bool = False
    told: SimpleQueue[int] = field(default_factory=SimpleQueue)
    counted: bool = False


_state = _State()


@contextmanager
def heeded() -> Iterator[None]:
    """Let signals raise Stopped, and remember them, in a block on the main thread; an inner block changes nothing."""
    if threading.current_thread() is not threading.main_thread() or _state.heeded:
        yield
        return
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as nohup leaves it
    numbers = [number for number in SIGNALS if not (ignored and number == signal.SIGHUP)]
    before = {number: signal.signal(number, _arrive) for number in numbers}
    _state.heeded = True
    try:
        with through_ray():
            yield
    finally:
        if not _state.ends:
            for number, handler in before.items():
                signal.signal(number, handler)
        _state.heeded = _state.at_once = False
        _state.number = 0


@contextmanager
def shielded() -> Iterator[None]:
    """Let signals wait while a block on the main thread takes down what was started, but for one that takes too long.

    What waits is raised at the next `check` after it. In a block within another one that one's time goes on.
    """
    if threading.current_thread() is not threading.main_thread() or _state.shielded_until:
        yield
        return
    _state.shielded_until = monotonic() + SHIELD_S
    try:
        yield
    finally:
        _state.shielded_until = 0.0


class ShieldedStack(ExitStack):
    """ExitStack that unwinds `shielded`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        with shielded():
            return super().__exit__(kind, error, trace)


def end_with(status: int) -> None:
    """Let a signal end this process at once, with this status: in a `heeded` block in which all has been done."""

    def leave(number: int, frame: FrameType | None) -> None:
        os._exit(status)

    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # its reader has gone, or it was closed
            stream.flush()
    _state.ends = True
    for number in SIGNALS:
        if signal.getsignal(number) is _arrive:
            signal.signal(number, leave)


def ignore() -> None:
    """Heed no signal any more. Python would give them their defaults back at its end, which kill."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def blocked() -> Iterator[None]:
    """Let SIGTERM and SIGHUP wait, for this thread; processes that are started in the block never get either.

    `timeout` and schedulers send them to every process. What a step needs must be there until it is saved.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FROM_OUTSIDE)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def deferred() -> Iterator[None]:
    """Do as `blocked` while Ray starts; what answers signals is the same afterwards."""
    on_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in SIGNALS} if on_main else {}
    with blocked():
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def heed_again() -> None:
    """Install our handlers once more, where they are: Ray, as it is left, gives SIGTERM its default back, in C."""
    for number in SIGNALS if _state.heeded else ():
        if signal.getsignal(number) is _arrive:
            signal.signal(number, _arrive)


def leave_to_driver() -> None:
    """Do nothing at SIGTERM and SIGHUP in this process, a rank's or one of graders: its driver ends it in time.

    What it starts gets them as usual, unlike in `blocked` or with SIG_IGN: both would be inherited.
    """
    for number in FROM_OUTSIDE:
        signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FROM_OUTSIDE)


@contextmanager
def by_ray() -> Iterator[None]:
    """Turn Ray's own answer to SIGTERM, which is SystemExit, into Stopped too."""
    try:
        yield
    except SystemExit as stop:
        raise Stopped(signal.SIGTERM) from stop


@contextmanager
def through_ray() -> Iterator[None]:
    """Turn the KeyboardInterrupt that a call into Ray makes of Stopped back into it, with its signal."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if isinstance(stop, Stopped) or not asked():
            raise
        raise Stopped(_state.number) from stop


@contextmanager
def grace(seconds: float, say: Callable[[str], None]) -> Iterator[None]:
    """Tell the first signal in a block, and let it go on for so long."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()
    told = _state.told = SimpleQueue()
    watcher = threading.Thread(target=_watch, args=(seconds, say, told, over), name="grace", daemon=True)
    _state.grace_s = seconds
    watcher.start()
    try:
        with _counted():
            yield
    finally:
        _state.grace_s = 0.0
        over.set()
        told.put(0)
        watcher.join()


def asked() -> bool:
    """Tell whether a signal has asked to stop."""
    return _state.number != 0


def take_time() -> None:
    """Let what follows in a `grace`, the saving, take as long as it needs; another Ctrl-C ends it all the same."""
    _state.grace_s = inf


def check() -> None:
    """Raise Stopped if a signal has arrived and there is no time left, also if it was raised before and got lost."""
    if _must_stop():
        raise Stopped(_state.number)


def stop() -> None:
    """Raise Stopped with the signal that has asked for it."""
    raise Stopped(_state.number)


def _must_stop() -> bool:
    if not asked() or monotonic() < _state.shielded_until:
        return False
    return _state.at_once or monotonic() >= _state.at_s + _state.grace_s


def _arrive(number: int, frame: FrameType | None) -> None:
    if not asked():
        _state.number = number
        _state.at_s = monotonic()
        _state.told.put(number)
    elif number == signal.SIGINT and monotonic() > _state.at_s + ONE_PRESS_S:
        _state.number = number
        _state.at_once = True
    check()


@contextmanager
def _counted() -> Iterator[None]:
    """Count how often Ctrl-C comes. While the main thread waits in Ray, Python tells it of several as of one."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    counter = threading.Thread(target=_count, args=(reading,), name="Ctrl-C", daemon=True)
    _state.counted = True
    counter.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        _state.counted = False
        os.write(writing, OVER)  # closed it may still be open, in a process that was forked meanwhile
        counter.join()
        os.close(writing)
        os.close(reading)


def _count_in_parent() -> None:
    """Let a forked process, such as one of a pool of `multiprocessing`, not tell its parent of its own signals."""
    if _state.counted:
        _state.counted = False
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_count_in_parent)


def _count(reading: int) -> None:
    first_s: float | None = None
    while OVER not in (numbers := os.read(reading, 64)):
        now = monotonic()
        for number in numbers:
            if number not in SIGNALS:
                continue
            if first_s is None:
                first_s = now
            elif number == signal.SIGINT and now > first_s + ONE_PRESS_S:
                _state.number = number
                _state.at_once = True


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def _watch(seconds: float, say: Callable[[str], None], told: SimpleQueue[int], over: threading.Event) -> None:
    """Tell the signal, which its handler could not do: it may have interrupted another line. Then count the time."""
    number = told.get()
    if not number:
        return
    again = "again " if number == signal.SIGINT else ""
    say(f"{Stopped(number)}: the run saves after this step, for which it has {seconds:g} s; Ctrl-C {again}ends it now")
    if not over.wait(seconds + LATER_S):
        signal.pthread_kill(threading.main_thread().ident or 0, number)  # so that its handler finds the time over
