"""`hybridflow settings`, the page that it makes, and the help of commands that train."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hybridflow.cli import main, settings

DOC = Path(__file__).parents[2] / "docs/settings.md"


@pytest.mark.processes
def test_the_page_is_what_the_schema_says() -> None:
    command = [sys.executable, "-m", "hybridflow", "settings", "--markdown"]  # without what other tests registered
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert made == DOC.read_text(encoding="utf-8"), f"hybridflow settings --markdown > {DOC}"


def test_keys_are_shown_with_default_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "trainer.keep_last", "actor.optimizer.lr"]) == 0
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "ROLE.optimizer.lr 0.0001 at least 0 # the learning rate; 0: every step is taken and nothing is learned",
        "trainer.keep_last 2 at least 1 # checkpoints that are kept",
    ]


def test_a_name_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "task.name"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "???" in line and "addition," in line and "word_sums" in line


def test_a_key_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "trainer.step", "trainer.steps", "recovery"]) == 2
    said = capsys.readouterr().err
    assert "trainer.step: no such key; did you mean trainer.steps?" in said
    assert "recovery: no such key; did you mean rollout.recovery?" in said


def test_help_has_every_key() -> None:
    lines = settings.settings_text().splitlines()
    assert len(lines) > 100 and any(line.split()[0] == "rollout.kv_cache_gib" for line in lines)
