"""Errors whose message is meant for the user: the command line shows it as its last line, without a traceback."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from hybridflow.bounded_code import kept_alive

OTHER_REASON = "cannot be used as it is"  # of a row, where nothing says it better
LONGEST_SHOWN = 240  # characters of a value in a message


class HybridFlowError(Exception):
    """Error that the user can mend. The message says what was found, what was expected and what to do."""

    exit_code: ClassVar[int] = 1


class ConfigError(HybridFlowError):
    """Settings that cannot be run as given, detected before anything was started."""

    exit_code: ClassVar[int] = 2


class ClusterError(HybridFlowError):
    """Loss of a part of the cluster without which a run cannot go on; it can from what it saved, once it is mended."""


class DataError(HybridFlowError, ValueError):
    """Row of a task that cannot be used as it is. The message names the row, and what is wrong with it.

    `reason`: the kind of fault, by which rows that are skipped are counted.
    """

    def __init__(self, message: str = "", *, reason: str = OTHER_REASON) -> None:
        super().__init__(message)
        self.reason = reason


class NameTakenError(ConfigError, ValueError):
    """Two parts of a kind were registered under one name."""


class UnexpectedError(HybridFlowError):
    """Unforeseen end of a run before its start; `__cause__` is the error."""

    exit_code: ClassVar[int] = 2


class Stopped(KeyboardInterrupt):
    """A signal has ended a command in order.

    Attributes:
        number: of the signal.
        saved: whether a checkpoint is there that the same command goes on from.
    """

    def __init__(self, number: int, message: str = "", *, saved: bool = False) -> None:
        by = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        super().__init__(message or f"interrupted by {by}")
        self.number = number
        self.saved = saved

    @property
    def exit_code(self) -> int:
        """Return 130 after Ctrl-C, as shells do; else EX_TEMPFAIL of sysexits(3) if it is worth calling again."""
        if self.number == signal.SIGINT:
            return 130
        return 75 if self.saved else 1


def counted(count: int, noun: str, plural: str = "") -> str:
    """Write a number with its noun: `1 rank`, `2 ranks`."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def shown(value: object) -> str:
    """Show a value in a message, as Python writes it; of a long one the beginning and the end."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # too many digits or brackets
        text = type(value).__name__
    half = LONGEST_SHOWN // 2
    return text if len(text) <= LONGEST_SHOWN else f"{text[:half]} … {text[-half:]}"


def line_and_trace(error: BaseException, line: Callable[[BaseException], str]) -> tuple[str, str]:
    """Return what `line` makes of an exception, and its traceback; also of one that cannot say what it is."""
    try:
        return line(error), "".join(traceback.format_exception(error))
    except Exception as other:  # an exception may break in any way when it is asked
        told = f"{type(error).__name__}, which cannot be put into words ({type(other).__name__})"
        return told, "".join(traceback.format_tb(error.__traceback__))


@contextmanager
def before_the_start() -> Iterator[None]:
    """Turn what is no message for the user into an UnexpectedError: in this block nothing has been started.

    So what is one is of bad input, a ConfigError; and code of the user's that would end the process is told of.
    """
    try:
        with kept_alive():
            yield
    except KeyboardInterrupt:
        raise
    except HybridFlowError as error:
        if error.exit_code == ConfigError.exit_code:
            raise
        raise ConfigError(str(error)) from error
    except BaseException as error:  # SystemExit of a plugin too
        raise UnexpectedError(str(type(error).__name__)) from error
