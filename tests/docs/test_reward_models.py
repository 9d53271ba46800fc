"""docs/reward-models.md: its task has pairs, its commands pass all checks, its errors are ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.blocks import commands, write_files
from tests.docs.conftest import Problems, Run

pytestmark = pytest.mark.processes

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


def test_its_task_has_pairs(tmp_path: Path, run: Run) -> None:
    assert write_files(PAGE, tmp_path) == ["my_preferences.py"]
    (tmp_path / "trial.py").write_text(TRIAL)
    run("python", "trial.py")


def test_its_commands_are_checked(problems: Problems, tiny: Callable[..., Path]) -> None:
    """Its uses fail only for want of a score: in place of runs' models of reward and cost there is a language model."""
    folder = tiny(layers=2, hidden=64, heads=2, kv_heads=2)
    names = ("sft", "train-reward", "train-cost")
    training = [command for name in names for command in commands(PAGE, f"hybridflow {name}")]
    uses = zip(("cost", "reward"), commands(PAGE, "hybridflow train experiment"), strict=True)
    told = problems([*([*c, f"actor.model.path={folder}"] for c in training), *(u + paths(folder, r) for r, u in uses)])
    scoreless = [[f"{role}.model.path: {folder} {SCORELESS.format(role)}"] for role in ("cost", "reward")]
    assert len(training) == 3 and told == [[], [], [], *scoreless]


def paths(folder: Path, role: str) -> list[str]:
    return [f"{name}.model.path={folder}" for name in ("actor", role)]


SCORELESS = "has no score head; hybridflow train-{0} makes a {0} model of it"


def test_the_page_shows_that_error() -> None:
    assert SCORELESS.format("reward") in (Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8")
