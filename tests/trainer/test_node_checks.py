"""A node of a joined cluster must have the models as they are here, and the run folder; else it is told at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from hybridflow.config import compose
from hybridflow.config.schema import Config
from hybridflow.controller import ResourcePool
from hybridflow.errors import ConfigError
from hybridflow.models.folder_digest import file_digests
from hybridflow.observe.run_lock import locked
from hybridflow.placement import resolve
from hybridflow.runtime.messages import NodeView, Report
from hybridflow.runtime.rank import Rank
from hybridflow.trainer import node_checks


class OtherDisks:
    """A pool on nodes that have other folders at the same paths.

    Args:
        disks: by address, what a node has in the place of `root`.
    """

    def __init__(self, root: Path, disks: dict[str, Path], writes: bool = True) -> None:
        self.root, self.disks, self.writes = root, disks, writes

    def node_views(self, folders: Sequence[str], mark: str) -> list[tuple[str, NodeView]]:
        return [(address, self._view(disk, folders, Path(mark))) for address, disk in self.disks.items()]

    def _view(self, disk: Path, folders: Sequence[str], mark: Path) -> NodeView:
        there = {folder: file_digests(disk / Path(folder).relative_to(self.root)) for folder in folders}
        file = disk / mark.relative_to(self.root)
        return NodeView(there, file.read_text() if file.is_file() else "", self.writes)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A disk with a model."""
    disk = tmp_path / "shared"
    (disk / "model").mkdir(parents=True)
    (disk / "model/config.json").write_text(json.dumps({"layers": 2}))
    (disk / "model/model.safetensors").write_bytes(bytes(64))
    return disk


def settings(disk: Path) -> Config:
    own = [f"actor.model.path={disk}/model", f"run.root={disk}/runs", "ray.address=auto"]
    return compose.compose("train", ["experiment=addition", "algorithm=grpo", *own]).to_config()


def problems(config: Config, pool: OtherDisks) -> list[str]:
    """With the run folder as it is while a run goes on."""
    placed = resolve(config, ("actor", "reference", "reward"), gpus=0)
    with locked(Path(config.run.root) / config.run.name):
        try:
            node_checks.check(config, placed, {"main": cast(ResourcePool, pool)})
        except ConfigError as error:
            return str(error).splitlines()
    return []


def test_nodes_that_share_the_disk_are_right(shared: Path) -> None:
    assert problems(settings(shared), OtherDisks(shared, {"10.0.0.5": shared, "10.0.0.6": shared})) == []


def test_what_a_node_lacks_is_told_all_at_once(shared: Path, tmp_path: Path) -> None:
    pool = OtherDisks(shared, {"10.0.0.5": shared, "10.0.0.6": tmp_path / "own", "10.0.0.7": tmp_path / "own"})
    model, run = problems(settings(shared), pool)
    assert model == (
        f"actor.model.path: {shared}/model is no model folder on nodes 10.0.0.6, 10.0.0.7, where ranks are to read it; "
        "put it on a disk that all nodes share, or copy it to the same path on each (docs/cluster.md)"
    )
    assert run.startswith(f"run.root: {shared}/runs/addition on nodes 10.0.0.6, 10.0.0.7 is not the folder that it is")


def test_an_older_copy_of_a_model_is_told(shared: Path, tmp_path: Path) -> None:
    config = settings(shared)
    old = shutil.copytree(shared, tmp_path / "old")
    (old / "model/model.safetensors").write_bytes(bytes(63) + b"1")
    model, run = problems(config, OtherDisks(shared, {"10.0.0.6": old}))
    assert model.startswith(f"actor.model.path: {shared}/model on node 10.0.0.6 is not what it is here: model.safetens")
    assert run.startswith("run.root: ")


def test_a_disk_that_a_node_may_only_read(shared: Path) -> None:
    (found,) = problems(settings(shared), OtherDisks(shared, {"10.0.0.6": shared}, writes=False))
    assert found.startswith(f"run.root: ranks on node 10.0.0.6 may not write into {shared}/runs/addition")


def test_a_rank_speaks_for_its_node(shared: Path) -> None:
    def view(speakers: list[int], folders: list[str], mark: Path) -> Any:
        return Report.decode(Rank(1).view_files("main", speakers, folders, str(mark))).value

    model = str(shared / "model")
    (shared / "mark").write_text("me")
    assert view([0], [model], shared / "mark") is None
    assert view([1], [model], shared / "mark") == NodeView({model: file_digests(model)}, "me", True)
    assert view([1], [f"{model}s"], shared / "gone/mark") == NodeView({f"{model}s": {}}, "", False)
