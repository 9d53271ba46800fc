"""A signal whose exception is lost is raised again at the next check."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hybridflow.controller import ResourcePool, interrupt


class Swallows:
    """Its finalizer is where the signal arrives: Python ignores what is raised there."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        for _ in range(1000):  # the signal is heeded between two bytecodes
            pass


@pytest.fixture(autouse=True)
def not_under_nohup() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", interrupt.SIGNALS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_lost_interrupt_is_raised_again(number: int) -> None:
    with interrupt.heeded():
        interrupt.check()
        lost = Swallows(number)
        del lost
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()


def test_handlers_are_put_back() -> None:
    outer = {number: signal.signal(number, signal.default_int_handler) for number in interrupt.SIGNALS}
    try:
        with interrupt.heeded():
            assert signal.getsignal(signal.SIGTERM) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        for number, handler in outer.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("number", [None, *interrupt.SIGNALS])
def test_a_pool_asks_nothing_of_a_cluster_that_a_signal_may_have_ended(
    number: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`timeout` and schedulers send SIGTERM to Ray's processes too; a call on them would wait for a minute."""
    asked: list[str] = []
    monkeypatch.setattr("hybridflow.controller.resource_pool.remove_placement_group", asked.append)
    pool = object.__new__(ResourcePool)
    pool.ranks, pool._meetings, pool._reserved = [], [], "slots"
    with contextlib.suppress(KeyboardInterrupt), interrupt.heeded(), contextlib.closing(pool):
        if number is not None:
            os.kill(os.getpid(), number)
    assert asked == ([] if number else ["slots"])


IN_THE_MIDDLE = """
import os, signal, ray
from hybridflow.controller import cluster

ray._private.node.Node = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
try:
    with cluster(slots=1):
        print("started")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.processes
def test_sigterm_while_ray_starts_is_an_interrupt() -> None:
    """Until our handler is there Ray has its own, which raises SystemExit."""
    ended = subprocess.run([sys.executable, "-c", IN_THE_MIDDLE], capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr


def test_under_nohup_a_terminal_that_hangs_up_ends_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interrupt.heeded():
        os.kill(os.getpid(), signal.SIGHUP)
        interrupt.check()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
