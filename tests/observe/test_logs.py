"""The package's log: warnings as plain lines on standard error, more where it is asked for."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hybridflow.errors import ConfigError, Stopped
from hybridflow.observe import logs

log = logging.getLogger("hybridflow.tests")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    logger = logging.getLogger("hybridflow")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_a_warning_is_its_text_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.show()
    logs.show()
    log.warning("still waiting for %s\x1b[2J", "rank 3")
    log.info("nobody asked")
    assert capsys.readouterr() == ("", "still waiting for rank 3\\x1b[2J\n")


def test_more_is_shown_with_its_place(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.LEVEL, "INFO")
    logs.show()
    log.info("built %s", "actor")
    log.debug("not this")
    told = capsys.readouterr().err
    assert told.endswith(" INFO hybridflow.tests: built actor\n") and told.count("\n") == 1


def test_a_warning_has_its_time_where_other_lines_of_a_run_have_theirs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.show()
    with logs.shown_with_times():
        log.warning("still waiting")
    log.warning("after the run")
    assert re.fullmatch(r"\d\d-\d\d \d\d:\d\d:\d\d still waiting\nafter the run\n", capsys.readouterr().err)
    monkeypatch.setenv(logs.LEVEL, "info")
    logs.show()
    with logs.shown_with_times():
        log.warning("still waiting")
    assert capsys.readouterr().err.endswith(" WARNING hybridflow.tests: still waiting\n"), "it has one already"


def test_a_level_that_there_is_not_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.LEVEL, "loud")
    with pytest.raises(ConfigError, match="HYBRIDFLOW_LOG: 'loud' given; one of debug, info, warning, error"):
        logs.show()


def test_a_library_that_nobody_configured_still_warns() -> None:
    code = "import logging; logging.getLogger('hybridflow.controller').warning('still waiting')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "still waiting\n"


def test_a_file_has_what_was_logged_before_it_was_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.show()
    with logs.remembered():
        log.info("built %s\x1b[2J", "actor")
        assert list(tmp_path.iterdir()) == []
        logs.write_to(tmp_path / "logs/driver.log")
        log.warning("a sink failed")
        logs.said.info("saved step 2")
        log.debug("not this")
    log.warning("after the run")
    lines = (tmp_path / "logs/driver.log").read_text().splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "INFO hybridflow.tests: built actor\\x1b[2J",
        "WARNING hybridflow.tests: a sink failed",
        "INFO hybridflow.said: saved step 2",
    ]
    assert all(re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} ", line) for line in lines)
    assert capsys.readouterr() == ("", "a sink failed\nafter the run\n"), "on the screen as before"


@pytest.mark.parametrize("error", [RuntimeError("out of room"), Stopped(15), SystemExit(3)], ids=type)
def test_what_ends_a_run_is_the_last_of_its_file(
    error: BaseException, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.show()
    with pytest.raises(type(error)), logs.remembered(), logs.with_its_end():
        logs.write_to(tmp_path / "driver.log")
        raise error
    lines = (tmp_path / "driver.log").read_text().splitlines()
    how = "was interrupted" if isinstance(error, Stopped) else "failed"
    assert lines[0].endswith(f" ERROR hybridflow.said: the run {how}")
    assert lines[1] == "Traceback (most recent call last):" and "    raise error" in lines
    assert lines[-1].endswith(f"{type(error).__name__}: {error}")
    assert capsys.readouterr() == ("", ""), "whoever catches it puts it on the screen"


def test_a_run_that_ends_well_has_no_error_in_its_file(tmp_path: Path) -> None:
    with logs.remembered(), logs.with_its_end():
        logs.write_to(tmp_path / "driver.log")
    assert (tmp_path / "driver.log").read_text() == ""


def test_a_start_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with suppress(ConfigError), logs.remembered(), logs.with_its_end():
        log.warning("no room")
        raise ConfigError("no room")
    assert list(tmp_path.iterdir()) == []
    with logs.remembered():
        logs.write_to(tmp_path / "driver.log")
    assert (tmp_path / "driver.log").read_text() == "", "what an earlier run of this process logged is not in it"
