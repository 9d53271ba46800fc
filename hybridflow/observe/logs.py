"""Logging: every module logs to `hybridflow.…`; a process of ours that nobody else configures shows it on stderr.

What a run tells its user (its progress, its table, what is wrong with a setting) is no log: it goes through `terminal`.
The log is for whoever runs it: what a start waits for, a sink that failed; with HYBRIDFLOW_LOG=info or debug also what
was started where, and each call on a rank.
"""

from __future__ import annotations

import logging
import os

from hybridflow.errors import ConfigError
from hybridflow.observe import terminal

LEVEL = "HYBRIDFLOW_LOG"  # of the environment, for ranks too
LEVELS = ("debug", "info", "warning", "error")


class TerminalHandler(logging.Handler):
    """Writes records to standard error as all text is written there."""

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
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s" if level.lower() in ("debug", "info") else "%(message)s"
    handler.setFormatter(logging.Formatter(form))
    logger.addHandler(handler)
    logger.setLevel(level.upper())
