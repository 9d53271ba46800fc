"""The log file of a rank: named after its pool and its number; a machine without the run's disk has none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path

import pytest

from hybridflow.observe import logs
from hybridflow.runtime.messages import Report
from hybridflow.runtime.rank import Rank


@pytest.fixture
def rank() -> Iterator[Rank]:
    """Rank 3, without Ray."""
    logger = logging.getLogger("hybridflow")
    handlers, level = list(logger.handlers), logger.level
    logs.remember()
    alone = object.__new__(Rank)
    alone._rank = 3
    yield alone
    for handler in logger.handlers:
        if isinstance(handler, MemoryHandler) and handler.target is not None:
            handler.target.close()
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_it_has_what_was_logged_before(rank: Rank, tmp_path: Path) -> None:
    logging.getLogger("hybridflow.workers").info("built")
    assert Report.decode(rank.write_log("main", str(tmp_path / "logs/main-"))).failure is None
    assert (tmp_path / "logs/main-3.log").read_text().endswith(" INFO hybridflow.workers: built\n")


def test_a_machine_without_that_disk_goes_on(rank: Rank, caplog: pytest.LogCaptureFixture) -> None:
    assert Report.decode(rank.write_log("main", "/proc/nowhere/main-")).failure is None
    assert "no log file on this machine: " in caplog.text
