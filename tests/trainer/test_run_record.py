"""run.json and events.jsonl: a run as it began and as it ended, and what was there before it was resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hybridflow.observe.run_folder import RunFolder
from hybridflow.trainer.progress import Progress
from hybridflow.trainer.run_record import FORMAT, end_killed, git_state, kept


def events(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.path / "events.jsonl").read_text().splitlines()]


def test_a_run_that_ends(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    progress = Progress()
    with kept(folder, "mine", None, progress, "actor"):
        begun = folder.record()
        assert begun["format"] == FORMAT and begun["status"] == "running" and begun["ended"] is None
        assert begun["process"] == os.getpid() and begun["command"] == sys.orig_argv
        assert begun["versions"]["python"].startswith("3.") and "ray" in begun["versions"]
        progress.steps, progress.seconds, progress.accuracy = 3, 1.25, {0: 0.5, 3: float("nan")}
    ended = folder.record()
    assert ended["status"] == "ended" and ended["error"] is None and ended["ended"] >= ended["started"]
    assert (ended["steps"], ended["seconds"], ended["accuracy"]) == (3, 1.2, {"0": 0.5, "3": None})
    start, end = events(folder)
    assert (start["event"], start["step"], start["resumed_from"]) == ("start", 0, None)
    assert (end["event"], end["step"], end["status"]) == ("end", 3, "ended")


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("a grader"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_run_that_does_not(error: BaseException, status: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(type(error)), kept(folder, "mine", None, Progress(), "actor"):
        raise error
    assert folder.record()["status"] == status == events(folder)[-1]["status"]
    assert folder.record()["error"] == (str(error) or "KeyboardInterrupt")


def test_a_run_that_learned_nothing_says_so(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    progress = Progress()
    with kept(folder, "mine", None, progress, "actor"):
        progress.take_in({"actor/updates": 4.0, "actor/grad_norm": 0.0}, "actor", 4)
    assert "had no gradient in any of 4 updates" in folder.record()["error"]


def test_a_resumed_run_keeps_what_was_before(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for source in (None, tmp_path / "checkpoints/step-000002", tmp_path / "checkpoints/step-000004"):
        with kept(folder, "mine", source, Progress(), "actor"):
            pass
    record = folder.record()
    assert record["resumed_from"].endswith("step-000004")
    assert [one["resumed_from"] and one["resumed_from"][-1] for one in record["earlier"]] == [None, "2"]
    assert all("earlier" not in one for one in record["earlier"])
    assert [line["event"] for line in events(folder)] == ["start", "end"] * 3


@pytest.mark.parametrize("content", ["", "[]", '{"earlier": 3}'])
def test_a_record_that_somebody_has_broken_is_no_reason_to_fail(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with kept(RunFolder(tmp_path), "mine", None, Progress(), "actor"):
        pass
    assert RunFolder(tmp_path).record()["status"] == "ended"


def test_a_full_disk_does_not_hide_what_ended_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(ZeroDivisionError), kept(folder, "mine", None, Progress(), "actor"):
        (tmp_path / "run.json.tmp").symlink_to("/dev/full")
        raise ZeroDivisionError
    assert folder.record()["status"] == "running"
    (tmp_path / "run.json.tmp").unlink()
    end_killed(folder)
    assert folder.record()["status"] == "killed"


def test_the_state_of_a_work_tree(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        name = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
        subprocess.run(["git", *name, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    assert git_state(tmp_path) is None, "there is no commit yet"
    (tmp_path / "loss.py").write_text("a")
    git("add", ".")
    git("commit", "-m", "one")
    state = git_state(tmp_path)
    assert state is not None and len(state["commit"]) == 40 and (state["branch"], state["dirty"]) == ("main", False)
    (tmp_path / "loss.py").write_text("b")
    assert git_state(tmp_path) == {**state, "dirty": True}


def test_a_folder_in_no_work_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(Path.cwd()) is None, "there is no git"
