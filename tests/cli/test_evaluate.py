"""`hybridflow evaluate`: what is wrong with a model is told before anything starts."""

from __future__ import annotations

import pytest

from hybridflow.cli import main


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("models/none", "models/none: there is no model: a Hugging Face folder (with a config.json), a run folder"),
        ("someone/tiny@main", "someone/tiny@main cannot be had from the hub: HF_HUB_OFFLINE is set; where there is a"),
    ],
)
def test_a_model_that_is_not_there(
    model: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["evaluate", model, "task=addition"]) == 2
    assert f"hybridflow evaluate: {told}" in capsys.readouterr().err
