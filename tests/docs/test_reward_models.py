"""docs/reward-models.md: its task has pairs, its commands pass all checks, its errors are ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.blocks import commands, write_files
from tests.docs.conftest import Run

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

CHECK = """
import sys
from hybridflow.cli import preflight
from hybridflow.config import compose
print(preflight.problems(compose.compose(sys.argv[1], sys.argv[2:]).to_config()))
"""


def test_its_task_has_pairs(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_files(PAGE, tmp_path) == ["my_preferences.py"]
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    run("python", "-c", TRIAL)


def test_its_training_commands_pass_every_check(tmp_path: Path, run: Run, tiny: Callable[..., Path]) -> None:
    folder = tiny(layers=2, hidden=64, heads=2, kv_heads=2)
    for name in ("sft", "train-reward", "train-cost"):
        [command] = commands(PAGE, f"hybridflow {name}")
        assert run("python", "-c", CHECK, *command[1:], f"actor.model.path={folder}").stdout == "[]\n"


def test_its_uses_fail_only_for_want_of_a_score(tmp_path: Path, run: Run, tiny: Callable[..., Path]) -> None:
    """The models of the page are runs'; in their place a language model, for the error that the page shows."""
    uses, folder = commands(PAGE, "hybridflow train experiment"), tiny(layers=2, hidden=64, heads=2, kv_heads=2)
    for role, use in zip(("cost", "reward"), uses, strict=True):
        paths = [f"{name}.model.path={folder}" for name in ("actor", role)]
        found = run("python", "-c", CHECK, *use[1:], *paths).stdout
        assert found == repr([f"{role}.model.path: {folder} {SCORELESS.format(role)}"]) + "\n"


SCORELESS = "has no score head; hybridflow train-{0} makes a {0} model of it"


def test_the_page_shows_that_error() -> None:
    assert SCORELESS.format("reward") in (Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8")
