"""A start that fails leaves the run folder as it was; one that works moves an earlier run away, and says where to."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridflow.config.schema import Config
from hybridflow.controller import Supervisor
from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.preflight import load
from hybridflow.tasks.addition import ALPHABET, Addition
from hybridflow.tasks.tokenizer import char_tokenizer
from hybridflow.trainer import run as trainer
from tests.cli.conftest import QWEN2


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A run whose folder has what a finished one left."""
    char_tokenizer(ALPHABET, max_tokens=64).save_pretrained(tmp_path / "model")
    (tmp_path / "model/config.json").write_text(json.dumps(QWEN2 | {"max_position_embeddings": 256}))
    name = ["experiment=addition", f"actor.model.path={tmp_path}/model", f"run.root={tmp_path}", "run.name=mine"]
    for file in ("config.yaml", "metrics.jsonl", "rollouts/rank0.jsonl", "model/model.safetensors"):
        (tmp_path / "mine" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / file).write_text("of the finished run\n")
    return load("train", name)


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_roles_that_cannot_be_built(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_room(config: Config, stack: ExitStack, say: Any) -> None:
        raise HybridFlowError("placement.pools.main: no room")

    monkeypatch.setattr(trainer, "build", no_room)
    before = contents(tmp_path)
    with pytest.raises(HybridFlowError, match="no room"):
        trainer.run(config)
    assert contents(tmp_path) == before


def test_options_that_a_task_does_not_take(config: Config, tmp_path: Path) -> None:
    config.task.options = {"last_digits": -1}
    before = contents(tmp_path)
    with pytest.raises(
        ConfigError, match=r"^task\.options: options of task 'addition': last_digits: -1 given, at least"
    ):
        trainer.run(config)
    assert contents(tmp_path) == before


def test_a_file_that_a_task_lacks_is_blamed_on_the_task(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not on the model's folder, whose files are missing in the same way."""

    def read(self: Addition, tokenizer: Any, **options: Any) -> None:
        Path("/nowhere/rows.jsonl").read_text()

    monkeypatch.setattr(Addition, "__init__", read)
    with pytest.raises(ConfigError, match=r"^task\.name: addition gives no rows: FileNotFoundError: .*/nowhere/rows"):
        trainer.run(config)


def test_a_name_that_leads_out_of_the_root(config: Config, tmp_path: Path) -> None:
    """Also of settings that no command has checked."""
    config.run.name = "../elsewhere"
    with pytest.raises(ConfigError, match=r"^run\.name: .* would lead out of run\.root"):
        trainer.run(config)
    assert not (tmp_path.parent / "elsewhere").exists()


def test_an_earlier_run_is_moved_once_all_is_built(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*given: Any) -> None:
        raise HybridFlowError("the training itself failed")

    algorithm = SimpleNamespace(components=(), learner="actor", state=dict)
    built = SimpleNamespace(algorithm=algorithm, groups={}, pools={}, supervisor=Supervisor(), processes=dict)
    monkeypatch.setattr(trainer, "build", lambda *given: built)
    monkeypatch.setattr(trainer, "train", stop)
    before = contents(tmp_path / "mine")
    for said in ("", "did not end, and had saved nothing: this one begins at step 0"):
        with pytest.raises(HybridFlowError, match="the training itself"):
            trainer.run(config)
        printed = capsys.readouterr().out
        assert said in printed and ("begins at step 0" in printed) == bool(said)
    assert f"what an earlier run left is now in {tmp_path}/mine/earlier-2" in printed
    assert contents(tmp_path / "mine/earlier-1") == before
    records = ["events.jsonl", "logs", "run.json", "tensorboard"]
    there = sorted(entry.name for entry in (tmp_path / "mine").iterdir())
    assert there == ["config.yaml", "earlier-1", "earlier-2", *records]
    assert json.loads((tmp_path / "mine/run.json").read_text())["error"] == "the training itself failed"
