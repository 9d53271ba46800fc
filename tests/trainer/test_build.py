"""What of the settings travels to the ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridflow.preflight import load
from hybridflow.trainer.build import with_absolute_paths


def test_paths_of_models_hold_in_every_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load("train", ["experiment=addition", "actor.model.path=models/mine", "reference.model.path=/elsewhere"])
    found = with_absolute_paths(config)
    assert found.actor.model.path == found.critic.model.path == str(tmp_path / "models/mine")
    assert (found.reference.model.path, found.reward.model.path) == ("/elsewhere", "")
    assert config.actor.model.path == "models/mine", "what is written into the run folder stays as it was given"
