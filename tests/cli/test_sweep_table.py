"""The table at the end of a sweep: each job's own settings, how it ended, and where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hybridflow.cli.sweep_table import Job, rows, show
from hybridflow.observe.run_folder import RunFolder


def build_job(folder: Path, *, status: int, process: int, accuracy: object = None, steps: int = 3) -> Job:
    folder.mkdir(parents=True)
    record = {"process": process, "steps": steps, "accuracy": accuracy or {}}
    RunFolder(folder).write_record(record)
    return Job(["experiment=addition", f"run.seed={folder.name}"], status, folder)


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    me = os.getpid()
    return [
        build_job(tmp_path / "0", status=0, process=me, accuracy={"0": 0.25, "3": 0.5}),
        build_job(tmp_path / "1", status=1, process=me, accuracy={"0": None}, steps=1),
        build_job(tmp_path / "2", status=2, process=me + 1, accuracy={"0": 0.75}),
        Job(["experiment=addition", "run.seed=3"], 1, tmp_path / "3"),
    ]


def test_each_job_has_a_row(jobs: list[Job], tmp_path: Path) -> None:
    assert rows(jobs) == [
        ("0", "run.seed=0", "done", "3", "0.500", str(tmp_path / "0")),
        ("1", "run.seed=1", "failed (1)", "1", "", str(tmp_path / "1")),
        ("2", "run.seed=2", "failed (not started)", "", "", str(tmp_path / "2")),
        ("3", "run.seed=3", "failed (not started)", "", "", str(tmp_path / "3")),
    ]
    assert rows([]) == []


def test_what_is_in_a_setting_moves_no_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # else a long path folds the other columns
    show([Job(["run.name=\x1b[2J"], 1, tmp_path), Job(["run.name=[red]"], 1, tmp_path)])
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown and "run.name=\\x1b[2J" in shown and "run.name=[red]" in shown
