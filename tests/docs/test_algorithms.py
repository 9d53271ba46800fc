"""docs/algorithms.md: its table is complete, and its commands and those of docs/tasks.md pass all checks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridflow.config import compose
from hybridflow.losses.loss import losses
from tests.docs.blocks import ROOT, blocks, commands, write_files
from tests.docs.conftest import Problems

pytestmark = pytest.mark.processes

PAGE = "docs/algorithms.md"
TASKS = "docs/tasks.md"
PAGE_TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
OURS = [name for name in losses if losses.get(name).__module__ == "hybridflow.losses.builtin_losses"]


def write_task_files(folder: Path) -> None:
    """The task's page says where its two YAML blocks without a title belong."""
    write_files(TASKS, folder)
    option, experiment = (block.text for block in blocks(TASKS) if block.language == "yaml" and not block.title)
    for name, text in (("task", option), ("experiment", experiment)):
        (folder / "my_configs" / name).mkdir(parents=True, exist_ok=True)
        (folder / "my_configs" / name / "chains.yaml").write_text(text, encoding="utf-8")


@pytest.fixture
def model(tiny: Callable[..., Path]) -> Path:
    return tiny(layers=2, hidden=64, heads=2, kv_heads=2)


def test_its_commands_pass_every_check(tmp_path: Path, problems: Problems, model: Path) -> None:
    write_task_files(tmp_path)
    found = [*commands(PAGE, "hybridflow train"), *commands(TASKS, "hybridflow train")]
    assert len(found) > 3
    assert problems([[*command, f"actor.model.path={model}"] for command in found]) == [[]] * len(found)


def test_the_table_has_every_option() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    for option in compose.options("algorithm"):
        assert f"| `{option}` |" in page


@pytest.mark.parametrize("name", OURS)
def test_the_table_of_losses_says_what_each_declares(name: str) -> None:
    """Columns of its needs, and of what it reads too; those of pairs depend on what is registered."""
    (row,) = re.findall(rf"^\| `{name}` \|[^|]*\|([^|]*)\|([^|]*)\| `[\w.]+` \|$", PAGE_TEXT, re.MULTILINE)
    declared = losses.get(name).declared()
    needs, optional = (re.findall(r"`(\w+)`", cell) for cell in row)
    assert needs == [*declared.needs] and (name == "pairs" or optional == [*declared.optional])
