"""Full RLHF by the command line, with very short stages: each takes up what those before it left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer.conftest import SMALL, Ran, start

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(600)]

SHORT = (
    "trainer.steps=2",
    "trainer.validate_every=0",
    "algorithm.prompts_per_step=16",
    "placement.pools.main=1",
    "actor.parallel.tensor=1",
)
FEW = "train.trainer.log_rollouts_every=1"


def rlhf(place: Path, *overrides: str) -> tuple[int, str]:
    process = start(["rlhf", *SMALL, *SHORT, FEW, *overrides], place)
    output, _ = process.communicate(timeout=560)
    return process.returncode, output


def test_stages_hand_their_models_on(place: Path) -> None:
    from hybridflow.cli import model

    assert model.run(["addition", "--layers", "4", "--out", str(place / "models/addition_4_layers")]) == 0
    status, output = rlhf(place)
    assert status == 0, output
    folders = {name: Ran(0, "", place / "runs/rlhf" / name) for name in FOLDERS}
    assert {name: len(ran.steps) for name, ran in folders.items()} == dict.fromkeys(FOLDERS, 2)
    layers = {name: config(ran)["num_hidden_layers"] for name, ran in folders.items()}
    assert layers == dict(zip(FOLDERS, (2, 4, 4, 2), strict=True))
    assert config(folders["addition_reward"])["architectures"] == ["Qwen2ForSequenceClassification"]
    rewarded = folders["addition_model_reward"]
    rows = [json.loads(line) for file in (rewarded.folder / "rollouts").iterdir() for line in file.open()]
    assert len(rows) == 32 and any(row["rewards"] not in (0.0, 1.0) for row in rows), "scores, not grades"
    assert "stage 4 of 4, train: hybridflow train " in output
    again, output = rlhf(place)
    assert again == 0 and output.count("complete, not run again") == 4, output


FOLDERS = ("addition_warmup", "addition_judge", "addition_reward", "addition_model_reward")


def config(ran: Ran) -> dict[str, object]:
    found: dict[str, object] = json.loads((ran.folder / "model/config.json").read_text())
    return found
