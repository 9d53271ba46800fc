"""Logging: every module logs to `hybridflow.…`; a process of ours that nobody else configures shows it on stderr.

What a run tells its user (its progress, its table, what is wrong with a setting) is no log: it goes through `terminal`.
The log is for whoever runs it: what a start waits for, a sink that failed; with HYBRIDFLOW_LOG=info or debug also what
was started where, and each call on a rank.

A process of a run keeps a file too, from `info` on and with times, in `logs/` of the run folder. What it logs before
that folder is its own waits in memory: a start that fails changes nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from time import perf_counter

from hybridflow.errors import ConfigError
from hybridflow.observe import terminal
from hybridflow.observe.secret_values import redacted

LEVEL = "HYBRIDFLOW_LOG"  # of the environment, for ranks too
LEVELS = ("debug", "info", "warning", "error")
ALONE = "%(message)s"
WITH_TIMES = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LINE_TIME = "%m-%d %H:%M:%S"  # in front of a line for the user, where no panel moves
TO_THE_SECOND = "%Y-%m-%dT%H:%M:%S%z"

said = logging.getLogger("hybridflow.said")
"""Lines for the user, which a file has too; whoever writes them here has put them on the screen."""


class TerminalHandler(logging.Handler):
    """Writes records to standard error as all text is written there."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name != said.name and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            terminal.complain(self.format(record))
        except Exception:
            self.handleError(record)


def show(level: str | None = None) -> None:
    """Show this process's log of hybridflow from a level on; once, however often it is called.

    Args:
        level: None: as HYBRIDFLOW_LOG says, else `warning`, whose text then stands alone.

    Raises ConfigError for a level that there is not.
    """
    level = level or os.environ.get(LEVEL) or "warning"
    if level.lower() not in LEVELS:
        raise ConfigError(f"{LEVEL}: {level!r} given; one of {', '.join(LEVELS)} was expected")
    logger = logging.getLogger("hybridflow")
    for handler in [handler for handler in logger.handlers if isinstance(handler, TerminalHandler)]:
        logger.removeHandler(handler)
    handler = TerminalHandler()
    handler.setFormatter(logging.Formatter(WITH_TIMES if level.lower() in ("debug", "info") else ALONE))
    handler.setLevel(level.upper())
    logger.addHandler(handler)
    logger.setLevel(min(handler.level, logging.INFO))


@contextmanager
def shown_with_times() -> Iterator[None]:
    """Let lines on the screen that stand alone begin with their time in the block, as those of a run do in a file."""
    alone = [one for one in logging.getLogger("hybridflow").handlers if _stands_alone(one)]
    before = [handler.formatter for handler in alone]
    for handler in alone:
        handler.setFormatter(logging.Formatter(f"%(asctime)s {ALONE}", LINE_TIME))
    try:
        yield
    finally:
        for handler, formatter in zip(alone, before, strict=True):
            handler.setFormatter(formatter)


def _stands_alone(handler: logging.Handler) -> bool:
    """Tell whether a handler shows the text of a record and no more."""
    return isinstance(handler, TerminalHandler) and getattr(handler.formatter, "_fmt", None) == ALONE


class FileLines(logging.Formatter):
    """Lines of a log file: with times, and escaped, as people show files on terminals."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(terminal.visible(super().format(record)))


class LogFile(logging.FileHandler):
    """File of a process's log. A disk that is full ends the run by its metrics, and is told there."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass


def remember() -> MemoryHandler:
    """Keep what this process logs from now on in memory, for the file that `write_to` will name."""
    logger = logging.getLogger("hybridflow")
    handler = MemoryHandler(capacity=1, flushLevel=logging.DEBUG)  # it flushes to its target, once it has one
    logger.addHandler(handler)
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    return handler


def write_to(file: Path) -> None:
    """Write what was remembered, and what comes, to the end of a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    target = LogFile(file, encoding="utf-8")
    target.setFormatter(FileLines(WITH_TIMES, TO_THE_SECOND))
    for handler in logging.getLogger("hybridflow").handlers:
        if isinstance(handler, MemoryHandler) and handler.target is None:
            handler.setTarget(target)
            handler.flush()


@contextmanager
def timed(log: logging.Logger, what: str) -> Iterator[None]:
    """Log how long a part of a start took, also one that fails: `what in 1.23 s`."""
    begun = perf_counter()
    try:
        yield
    finally:
        log.info("%s in %.2f s", what, perf_counter() - begun)


@contextmanager
def with_its_end() -> Iterator[None]:
    """Log what ends the block before its end, an error or a signal, with its traceback: in the file alone.

    Whoever catches it puts it on the screen.
    """
    try:
        yield
    except BaseException as error:
        how = "was interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        said.error("the run %s", how, exc_info=error)
        raise


@contextmanager
def remembered() -> Iterator[None]:
    """Do as `remember` does, for the block."""
    logger = logging.getLogger("hybridflow")
    level = logger.level
    handler = remember()
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        target = handler.target
        handler.close()
        if target is not None:
            target.close()
