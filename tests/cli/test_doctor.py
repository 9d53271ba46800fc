"""`hybridflow doctor`."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest

from hybridflow.cli import doctor, main
from hybridflow.preflight.finding import Finding, bad, ok, warn

pytestmark = pytest.mark.processes


def found(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    monkeypatch.setattr(doctor, "_findings", lambda runs, start: iter(findings))


@pytest.mark.parametrize(
    ("findings", "status", "last"),
    [
        ((ok("cores", "8"),), 0, "ready"),
        ((ok("cores", "8"), warn("g++", "none", "get it")), 0, "ready; 1 to know about"),
        ((bad("memory", "", ""), warn("g++", "", "")), 1, "1 bad: no run starts until that is mended"),
    ],
)
def test_status_and_summary(
    findings: tuple[Finding, ...],
    status: int,
    last: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found(monkeypatch, *findings)
    assert main(["doctor"]) == status
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_a_line_has_what_to_do_below_it() -> None:
    assert doctor.line(ok("cores", "8")) == "  ok    cores         8"
    shown = doctor.line(warn("/dev/shm", "64 MiB\x1b[2J", "give more")).splitlines()
    assert shown == ["  warn  /dev/shm      64 MiB\\x1b[2J", "                      -> give more"]


def test_another_system_is_all_that_is_wrong_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no /proc, and not all that Python has here."""
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert main(["doctor", "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["status"], finding["subject"]) == ("bad", "system") and "Darwin" in finding["found"]


def test_this_machine_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json", "--runs", str(tmp_path)])
    record = json.loads(capsys.readouterr().out)
    assert status == (record["status"] == "bad")
    subjects = [finding["subject"] for finding in record["findings"]]
    assert {"Python", "packages", "vLLM", "extras", "devices", "cores", "memory", "/dev/shm", "ports"} <= {*subjects}
    assert str(tmp_path) in " ".join(finding["found"] for finding in record["findings"])
