"""Where a run may be: inside `run.root`, in a folder that can be written, and not on top of its own input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hybridflow.config import Config
from hybridflow.config.schema import RunConfig
from hybridflow.errors import ConfigError
from hybridflow.preflight import load, run_folder_checks


def told(name: str = "mine", root: str | Path = "runs") -> list[str]:
    return run_folder_checks.problems(Config(run=RunConfig(name, str(root))))


@pytest.mark.parametrize(
    "name", ["mine", "exp/a", "name/0", "a.b", "..a", "a b", "ünï", "x=1", "-", "earlier-1", "a/./b", "a\udcff"]
)
def test_names_that_are_rightly_wanted(tmp_path: Path, name: str) -> None:
    assert told(name, tmp_path / "runs") == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "names no folder"),
        ("  ", "names no folder"),
        (".", "names no folder"),
        ("./", "names no folder"),
        ("..", "out of run.root"),
        ("../x", "out of run.root"),
        ("a/../../x", "out of run.root"),
        ("/tmp/x", "out of run.root"),
        ("/", "names no folder"),
        ("a\0b", "cannot be printed"),
        ("a\x1b[1m", "cannot be printed"),
        ("a\ud800", "cannot be printed"),
        ("a" * 256, "longer than 255 bytes"),
    ],
)
def test_names_that_lead_elsewhere(tmp_path: Path, name: str, why: str) -> None:
    (problem,) = told(name, tmp_path)
    assert problem.startswith("run.name: ") and why in problem and "\x1b" not in problem


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        *((part, "a file") for part in ("config.yaml", "metrics.jsonl", "events.jsonl", "run.json", ".lock")),
        *((part, "a file") for part in ("checkpoints/LATEST", "rollouts/rank0.jsonl", "validation/a/rank0.jsonl")),
        *((part, "a file") for part in ("journal/000001-actor-0-7.rows",)),
        *((part, "a folder") for part in ("checkpoints", "rollouts", "validation", "logs", "model", "journal")),
    ],
)
def test_parts_of_a_run_that_are_of_another_kind(tmp_path: Path, part: str, wanted: str) -> None:
    path = tmp_path / "mine" / part
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert told(root=tmp_path) == [
        f"run.name: {path} is neither a file nor a folder; {wanted} was expected; put back what was there, move it "
        "away, or choose another name"
    ]
    path.unlink()
    path.symlink_to(path)
    assert f"{path} is a link that leads nowhere; {wanted} was expected" in told(root=tmp_path)[0]
    path.unlink()
    path.mkdir() if wanted == "a file" else path.write_text("")
    assert f"{path} is a {'folder' if wanted == 'a file' else 'file'}; {wanted} was expected" in told(root=tmp_path)[0]


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine").write_text("")
    assert told(root=tmp_path / "file") == [f"run.root: {tmp_path}/file is a file; a folder was expected"]
    assert told(root=tmp_path / "file/below") == [f"run.root: {tmp_path}/file is a file; a folder was expected"]
    assert told(root=tmp_path / "link") == [f"run.root: {tmp_path}/link is a broken link; a folder was expected"]
    assert told(root=tmp_path / "runs") == [f"run.name: {tmp_path}/runs/mine is a file; a folder was expected"]
    assert told(root="\0")[0].startswith("run.root: ")
    assert told(root=tmp_path / "a/b/c") == []


def test_a_root_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, as tests may run, can write anywhere
    assert told(root=tmp_path)[0].startswith(f"run.root: {tmp_path} cannot be written")


def test_a_run_inside_what_another_would_move_away(tmp_path: Path) -> None:
    assert told("exp/model/a", tmp_path) == [], "exp is no run"
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp/config.yaml").write_text("")
    assert told("exp/a", tmp_path) == []
    assert told("exp/model/a", tmp_path) == [
        "run.name: exp/model/a is inside the model of the run exp; choose another name"
    ]


def test_its_own_model_as_input(tmp_path: Path) -> None:
    config = Config(run=RunConfig("mine", str(tmp_path)))
    config.critic.model.path = config.reference.model.path = "elsewhere"
    for folder in ("mine/model", "mine/earlier-1/model", "other/model"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for path, wrong in (("mine/model", 1), ("link/model", 1), ("mine/earlier-1/model", 0), ("other/model", 0)):
        config.actor.model.path = str(tmp_path / path)
        found = list(run_folder_checks.inputs_in_the_way(config, ("actor", "critic", "reference")))
        assert len(found) == wrong, path
    config.task.options = {"file": str(tmp_path / "mine/rollouts/rank0.jsonl"), "n": 3, "text": "a\0b"}
    assert list(run_folder_checks.inputs_in_the_way(config, ("actor",))) == [], "it is not there"
    (tmp_path / "mine/rollouts").mkdir()
    (tmp_path / "mine/rollouts/rank0.jsonl").write_text("{}")
    (problem,) = run_folder_checks.inputs_in_the_way(config, ("actor",))
    assert problem.startswith("task.options.file: ") and "begins by moving rollouts away" in problem
    (tmp_path / "mine/circle").symlink_to("circle")
    config.task.options = {"file": str(tmp_path / "mine/circle")}
    assert list(run_folder_checks.inputs_in_the_way(config, ("actor",))) == []
    config.run.name = "a\0b"  # which is told as a name
    assert list(run_folder_checks.inputs_in_the_way(config, ("actor",))) == []


def test_a_name_is_checked_where_settings_are_composed_in_python() -> None:
    with pytest.raises(ConfigError, match=r"^run\.name: '\.\./x' would lead out of run\.root; .*\(run\.name=\.\./x on"):
        load("train", ["experiment=addition", "run.name=../x"])
