"""What ends a command before a run starts: one line and exit 2, and a traceback for who asks."""

from __future__ import annotations

import os

import pytest

from hybridflow.cli import error_report, main
from hybridflow.errors import ConfigError, HybridFlowError, UnexpectedError, before_the_start


class WordlessError(Exception):
    def __str__(self) -> str:
        raise ValueError


def ended(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr("hybridflow.cli._dispatch", fail)
    return main(["train"])


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ConfigError("a: b"), 2, "hybridflow train: a: b"),
        (HybridFlowError("a: b"), 1, "hybridflow train: a: b"),
        (KeyError("x"), 2, "hybridflow train: unexpected KeyError: 'x' ("),
        (SystemExit(0), 2, "hybridflow train: unexpected SystemExit: 0 ("),
        (SystemExit(), 2, "hybridflow train: unexpected SystemExit: "),
        (GeneratorExit(), 2, "hybridflow train: unexpected GeneratorExit: no message ("),
        (WordlessError(), 2, "hybridflow train: unexpected WordlessError: no message ("),
        (ValueError("one\ntwo"), 2, "hybridflow train: unexpected ValueError: one ("),
        (PermissionError(13, "Permission denied", "/x\x1b"), 2, "hybridflow train: /x\\x1b: Permission denied"),
        (KeyboardInterrupt(), 130, "hybridflow: interrupted"),
    ],
)
def test_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, told: str
) -> None:
    monkeypatch.delenv(error_report.TRACEBACK, raising=False)
    assert ended(monkeypatch, error) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(told) and len(err.splitlines()) == 1
    if "unexpected" in told:
        assert "test_error_report.py:" in err and err.endswith("HYBRIDFLOW_TRACEBACK=1 shows where it comes from\n")


def test_of_a_line_that_nobody_reads_the_ends_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, ConfigError(f"plugins: {'x' * 10**6} (mine.py:7)\n{'y' * 3000}")) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert (first, third) == ("hybridflow train:", f"  {'y' * 3000}")
    assert second.startswith("  plugins: xxx") and second.endswith("xxx (mine.py:7)") and len(second) < 3100
    assert f"… ({10**6 + len('plugins:  (mine.py:7)') - 3000} characters) …" in second


def test_a_traceback_is_there_for_the_asking(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(error_report.TRACEBACK, "1")
    assert ended(monkeypatch, KeyError("\x1b[2J")) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n") and "\x1b" not in err
    assert err.splitlines()[-1].startswith("hybridflow train: unexpected KeyError")


def test_before_the_start_tells_what_is_foreseen_from_what_is_not() -> None:
    for foreseen in (ConfigError("x"), KeyboardInterrupt()):
        with pytest.raises(type(foreseen)), before_the_start():
            raise foreseen
    with pytest.raises(ConfigError, match=r"^no server answers$"), before_the_start():
        raise HybridFlowError("no server answers")
    with pytest.raises(UnexpectedError) as ended, before_the_start():
        os._exit(0)
    assert "would have ended the process" in str(ended.value.__cause__)
    for other in (OSError("x"), SystemExit(0)):
        with pytest.raises(UnexpectedError) as error, before_the_start():
            raise other
        assert error.value.__cause__ is other and error.value.exit_code == 2
