"""docs/reward-models.md: its task has pairs, its commands pass all checks, its errors are ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.blocks import commands, write_files
from tests.docs.conftest import Problems, Run

PAGE = "docs/reward-models.md"

TRIAL = """
from my_preferences import Politeness
from tests.tiny import ALPHABET
from hybridflow.tasks import build
from hybridflow.tasks.tokenizer import char_tokenizer

tokenizer = char_tokenizer(ALPHABET + ",")
pairs = build("politeness", tokenizer, {}).preferences("train", [4])
texts = [tokenizer.decode(pairs.ragged(side)[0][:-1]) for side in ("response_ids", "rejected_ids")]
assert texts == ["5, dear", "5"], texts
"""


def test_its_task_has_pairs(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_files(PAGE, tmp_path) == ["my_preferences.py"]
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    run("python", "-c", TRIAL)


def test_its_commands_are_checked(problems: Problems, tiny: Callable[..., Path]) -> None:
    """Its use fails only for want of a score: in place of a run's `reward.model.path` there is a language model."""
    folder = tiny(layers=2, hidden=64, heads=2, kv_heads=2)
    training = [*commands(PAGE, "hybridflow sft"), *commands(PAGE, "hybridflow train-reward")]
    [use] = commands(PAGE, "hybridflow train experiment")
    told = problems([*([*c, f"actor.model.path={folder}"] for c in training), [*use, *paths(folder)]])
    assert len(training) == 2 and told == [[], [], [f"reward.model.path: {folder} {SCORELESS}"]]


def paths(folder: Path) -> list[str]:
    return [f"{role}.model.path={folder}" for role in ("actor", "reward")]


SCORELESS = "has no score head; hybridflow train-reward makes a reward model of it"


def test_the_page_shows_that_error() -> None:
    assert SCORELESS in (Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8")
