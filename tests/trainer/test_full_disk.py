"""A checkpoint that finds no room: told before ranks begin, and the run ends or goes on as `trainer.full_disk` says."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridflow.config.schema import Config, FullDisk
from hybridflow.controller import Supervisor
from hybridflow.observe.disk_errors import DiskError
from hybridflow.observe.run_folder import RunFolder
from hybridflow.placement import Placement
from hybridflow.roles import ActorRole
from hybridflow.runtime.messages import Report
from hybridflow.trainer import checkpoint, loop
from hybridflow.trainer.build import Running
from hybridflow.trainer.goodput import WallClock
from hybridflow.trainer.progress import Progress
from tests.conftest import GetModel


def test_the_room_that_a_checkpoint_takes_is_known_before(
    tiny: GetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config()
    config.actor.model.path = str(tiny())
    size = checkpoint.saved_bytes(config, "actor")
    weights = sum(file.stat().st_size for file in Path(config.actor.model.path).glob("*.safetensors"))
    assert 2.9 * weights < size < 3.1 * weights
    folder = RunFolder(tmp_path)
    checkpoint.refuse_without_room(folder, size)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size - 1))
    with pytest.raises(DiskError, match=r"^No space left on device: .*/checkpoints: a checkpoint takes"):
        checkpoint.refuse_without_room(folder, size)


@pytest.mark.parametrize("policy", FullDisk)
def test_the_run_ends_or_goes_on(policy: FullDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> float:
        raise DiskError("No space left on device: there")

    monkeypatch.setattr(checkpoint, "save", full)
    config = Config()
    config.trainer.full_disk = policy
    said: list[str] = []
    outputs: Any = SimpleNamespace(folder=RunFolder(tmp_path), say=said.append, clock=WallClock(), journal=None)
    running: Any = None
    if policy is FullDisk.stop:
        with pytest.raises(DiskError):
            loop._save(config, running, outputs, Progress(steps=3))
        assert not said
    else:
        loop._save(config, running, outputs, Progress(steps=3))
        assert said == ["warning: step 3 is not saved: No space left on device: there"]
        assert '"unsaved", "step": 3' in (tmp_path / "events.jsonl").read_text()


def running_that_gives(*values: object) -> Running:
    """A run with an actor each of whose ranks gives one of these when it is asked to save."""
    interface: Any = ActorRole
    reports = [Report(value=value) for value in values]
    actor = SimpleNamespace(interface=interface, save_checkpoint=lambda _: SimpleNamespace(metadata=lambda: reports))
    algorithm: Any = SimpleNamespace(state=dict)
    groups: Any = {"actor": actor}
    return Running(algorithm, groups, {}, Placement((), ()), Supervisor())


def small_config(tiny: GetModel, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Settings of a run that saves the tiny model's actor, and how they are written: not at length."""
    config = Config()
    config.actor.model.path = str(tiny())
    monkeypatch.setattr(checkpoint, "resolved_yaml", lambda _: "a: 1")
    return config


def outputs_in(folder: Path, said: list[str]) -> Any:
    """Outputs of a run in a folder; what it says is added to `said`."""
    return SimpleNamespace(folder=RunFolder(folder), say=said.append, clock=WallClock(), journal=None)


def test_a_rank_without_room_ends_the_save_and_leaves_the_run(
    tiny: GetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker of somebody else's gives besides is no trouble."""
    config = small_config(tiny, monkeypatch)
    config.trainer.full_disk = FullDisk.go_on
    said: list[str] = []
    outputs = outputs_in(tmp_path, said)
    full = DiskError("No space left on device: there")
    for step, values in enumerate([(None, "folder"), (None, full), (None, None)], 1):
        loop._save(config, running_that_gives(*values), outputs, Progress(steps=step))
    assert said[1] == "warning: step 2 is not saved: No space left on device: there" and len(said) == 3
    assert sorted(entry.name for entry in outputs.folder.checkpoints.iterdir()) == [
        "LATEST",
        "step-000001",
        "step-000003",
    ]


def test_a_checkpoint_whose_name_finds_no_room_is_there(
    tiny: GetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tiny, monkeypatch)
    config.trainer.full_disk = FullDisk.go_on
    said: list[str] = []
    outputs = outputs_in(tmp_path, said)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/LATEST.tmp").symlink_to("/dev/full")
    loop._save(config, running_that_gives(None), outputs, Progress(steps=1))
    assert said[0] == f"warning: step 1 is saved, but No space left on device: {tmp_path}/checkpoints/LATEST.tmp"
    assert said[1].startswith("saved step 1 in ")


def test_no_checkpoint_counts_on_lines_that_wait_for_room(
    tiny: GetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tiny, monkeypatch)
    folder = RunFolder(tmp_path)
    folder.wait_for_room(lambda _: None)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    folder.log({"step": 0})
    between = folder.sizes(synced=False)
    folder.log({"step": 1})
    with pytest.raises(DiskError, match=rf"^No space left on device: {tmp_path}/metrics\.jsonl$"):
        checkpoint.save(config, running_that_gives(None), folder, Progress(steps=1))
    folder.truncate_to(between)  # as after the loss of a rank: the second is made again
    (tmp_path / "metrics.jsonl").unlink()
    checkpoint.save(config, running_that_gives(None), folder, Progress(steps=1))
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0}\n'
    assert folder.sizes() == between
