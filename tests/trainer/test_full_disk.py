"""A checkpoint that finds no room: told before ranks begin, and the run ends or goes on as `trainer.full_disk` says."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridflow.config.schema import Config, FullDisk
from hybridflow.observe.disk_errors import DiskError
from hybridflow.observe.run_folder import RunFolder
from hybridflow.trainer import checkpoint, loop
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
    outputs: Any = SimpleNamespace(folder=RunFolder(tmp_path), say=said.append, clock=WallClock())
    running: Any = None
    if policy is FullDisk.stop:
        with pytest.raises(DiskError):
            loop._save(config, running, outputs, Progress(steps=3))
        assert not said
    else:
        loop._save(config, running, outputs, Progress(steps=3))
        assert said == ["warning: step 3 is not saved: No space left on device: there"]
