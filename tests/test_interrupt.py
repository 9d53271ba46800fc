"""Signals: raised at once, or after a grace in which the first is told and remembered; a lost one is raised again."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from hybridflow import cli, interrupt
from hybridflow.errors import Stopped

pytestmark = pytest.mark.usefixtures("fresh_signals")


class Swallows:
    """Its finalizer is where the signal arrives: Python ignores what is raised there."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        arrives(self.number)


def arrives(number: int) -> None:
    """A signal, heeded before this returns."""
    os.kill(os.getpid(), number)
    for _ in range(1000):  # the signal is heeded between two bytecodes
        pass


def told_within(lines: list[str], seconds: float) -> list[str]:
    """What another thread has said, once it has."""
    end = time.monotonic() + seconds
    while not lines and time.monotonic() < end:
        time.sleep(0.001)
    return lines


@pytest.mark.parametrize("number", interrupt.SIGNALS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_lost_interrupt_is_raised_again(number: int) -> None:
    with interrupt.heeded():
        interrupt.check()
        lost = Swallows(number)
        del lost
        with pytest.raises(Stopped) as stopped:
            interrupt.check()
    assert stopped.value.number == number
    assert not interrupt.asked(), "it is over with the block"


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_what_ray_makes_of_a_signal_is_that_signal_again(number: int) -> None:
    with pytest.raises(Stopped) as stopped, interrupt.heeded():
        try:
            arrives(number)
        except Stopped:
            raise KeyboardInterrupt from None  # as `ray.get` does, whatever its handler raised
    assert stopped.value.number == number


def test_handlers_are_put_back() -> None:
    outer = {number: signal.signal(number, signal.default_int_handler) for number in interrupt.SIGNALS}
    try:
        with interrupt.heeded(), interrupt.heeded():
            assert signal.getsignal(signal.SIGTERM) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        for number, handler in outer.items():
            signal.signal(number, handler)


def test_under_nohup_a_terminal_that_hangs_up_ends_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interrupt.heeded():
        arrives(signal.SIGHUP)
        interrupt.check()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_in_a_grace_the_first_signal_is_told_and_remembered(number: int) -> None:
    lines: list[str] = []
    with interrupt.heeded():
        with interrupt.grace(60, lines.append):
            arrives(number)
            arrives(signal.SIGTERM)  # as `timeout` sends it to its child, and to the child's group
            interrupt.check()
            assert interrupt.asked()
            (line,) = told_within(lines, 10)
            assert str(Stopped(number)) in line and "60 s" in line
        with pytest.raises(Stopped):
            interrupt.check()


def test_a_second_ctrl_c_ends_a_grace_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "ONE_PRESS_S", 0.0)
    with interrupt.heeded(), interrupt.grace(60, str):
        arrives(signal.SIGTERM)
        interrupt.take_time()
        with pytest.raises(Stopped) as stopped:
            arrives(signal.SIGINT)
    assert stopped.value.exit_code == 130


def test_presses_are_counted_while_the_main_thread_waits_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Ray, for half a second: Python then calls the handler once."""
    monkeypatch.setattr(interrupt, "ONE_PRESS_S", 0.02)

    def press() -> None:
        for _ in range(2):
            time.sleep(0.06)
            os.kill(os.getpid(), signal.SIGINT)

    presses = threading.Thread(target=press)
    with interrupt.heeded(), interrupt.grace(60, str), pytest.raises(Stopped) as stopped:
        presses.start()
        while presses.is_alive():
            hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)
        interrupt.check()
        time.sleep(0.05)
        interrupt.check()
    assert stopped.value.exit_code == 130


def test_of_a_forked_process_no_signals_are_counted_and_a_grace_ends_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of one of a pool of `multiprocessing`, which ends its processes by SIGTERM, or lets them live on."""
    monkeypatch.setattr(interrupt, "ONE_PRESS_S", 0.0)
    with interrupt.heeded():
        begin = time.monotonic()
        with interrupt.grace(60, str):
            lives_on = os.fork()
            if not lives_on:
                with suppress(BaseException):
                    os.kill(os.getpid(), signal.SIGHUP)
                    time.sleep(0.001)
                time.sleep(9)
                os._exit(0)
            time.sleep(0.1)
            arrives(signal.SIGINT)
            time.sleep(0.05)
            interrupt.check()
        took = time.monotonic() - begin
    os.kill(lives_on, signal.SIGKILL)
    os.waitpid(lives_on, 0)
    assert took < 5


def test_one_press_may_arrive_twice() -> None:
    """`timeout -s INT` sends the signal to its child, and to the child's group."""
    with interrupt.heeded(), interrupt.grace(60, str):
        arrives(signal.SIGINT)
        arrives(signal.SIGINT)
        interrupt.check()


def test_the_time_of_a_grace_ends() -> None:
    with interrupt.heeded(), interrupt.grace(0.02, str), pytest.raises(Stopped):
        arrives(signal.SIGTERM)
        time.sleep(10)  # not a place that checks


def test_saving_takes_its_time() -> None:
    with interrupt.heeded(), interrupt.grace(0.01, str):
        arrives(signal.SIGTERM)
        interrupt.take_time()
        time.sleep(0.05)
        interrupt.check()


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_what_is_taken_down_is_not_interrupted(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the first signal nor by more of them; but where it never ends they do."""
    done: list[str] = []

    def take_down() -> None:
        arrives(number)
        interrupt.check()
        done.append("taken down")

    monkeypatch.setattr(interrupt, "ONE_PRESS_S", 0.0)
    with interrupt.heeded():
        with interrupt.ShieldedStack() as stack, interrupt.shielded():
            stack.callback(take_down)
            stack.callback(take_down)
        assert done == ["taken down"] * 2
        with pytest.raises(Stopped):
            interrupt.check()
        monkeypatch.setattr(interrupt, "SHIELD_S", 0.0)
        with pytest.raises(Stopped), interrupt.ShieldedStack() as stack:
            stack.callback(take_down)


@pytest.mark.parametrize(("number", "late"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_signal_after_the_last_line_changes_no_status(number: int, late: bool) -> None:
    """Also one that comes while the interpreter ends, whose defaults would kill."""
    program = """
import atexit, os, sys
from hybridflow import cli
from hybridflow.errors import Stopped

def dispatch(arguments):
    raise Stopped(15, "saved", saved=True)

class Late:
    def __del__(self):
        os.write(1, b"late")
        os.kill(os.getpid(), {number})

cli._dispatch = dispatch
if {late}:
    sys.modules["kept"] = Late()
    sys.exit(cli.main())
status = cli.main()
os.kill(os.getpid(), {number})
for _ in range(1000):
    pass
"""
    program = program.format(number=int(number), late=late)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (75, "late" if late else ""), done.stderr
    assert done.stderr == "hybridflow: saved\n"


def test_what_is_deferred_arrives_afterwards_by_the_handlers_of_before() -> None:
    with interrupt.heeded(), pytest.raises(Stopped), interrupt.deferred():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has its own
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # other threads of this process defer nothing


def test_a_rank_leaves_signals_to_its_driver() -> None:
    """And what it starts, does not."""
    before = {number: signal.getsignal(number) for number in interrupt.FROM_OUTSIDE}
    try:
        with suppress(Stopped), interrupt.deferred():
            interrupt.leave_to_driver()
            arrives(signal.SIGTERM)
            assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {*interrupt.FROM_OUTSIDE}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("stop", "status"),
    [
        (Stopped(signal.SIGTERM), 1),
        (Stopped(signal.SIGTERM, "saved", saved=True), 75),
        (Stopped(signal.SIGINT, "saved", saved=True), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_the_exit_status_says_whether_to_call_again(
    stop: KeyboardInterrupt, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(arguments: list[str]) -> int:
        raise stop

    monkeypatch.setattr(cli, "_dispatch", stopped)
    assert cli.main(["train"]) == status
    assert capsys.readouterr().err == f"hybridflow: {str(stop) or 'interrupted'}\n"


def test_every_command_heeds_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_dispatch", lambda arguments: arrives(signal.SIGTERM))
    assert cli.main(["export"]) == 1
