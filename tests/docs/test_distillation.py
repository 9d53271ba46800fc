"""docs/distillation.md: a user's package of at most 60 lines, with which a student comes closer to its teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.blocks import blocks, commands, write_files
from tests.docs.conftest import Problems, Run

pytestmark = pytest.mark.processes

PAGE = "docs/distillation.md"
FILE = "my_pkg/distillation.py"


@pytest.fixture
def models(tiny: Callable[..., Path]) -> list[str]:
    """The student and its teacher, as settings."""
    student, teacher = (tiny(layers=2, hidden=64, heads=2, kv_heads=2, seed=seed) for seed in (0, 1))
    return [f"actor.model.path={student}", f"teacher.model.path={teacher}"]


def settings() -> list[str]:
    """The page's command, but for the teacher that it names."""
    (command,) = commands(PAGE, "hybridflow train")
    return command[:-1]


def test_the_package_is_as_short_as_promised() -> None:
    (text,) = (block.text for block in blocks(PAGE) if block.title == FILE)
    lines = [line for line in text.splitlines() if line.strip()]
    assert 0 < len(lines) <= 60
    assert max(map(len, lines)) <= 120 and ";" not in text


@pytest.mark.ranks
def test_the_kl_to_the_teacher_falls(tmp_path: Path, run: Run, models: list[str]) -> None:
    """Twelve steps on the sums of `experiment=addition`: by a quarter at least, over the mean of two steps each."""
    write_files(PAGE, tmp_path)
    sizes = ["placement.pools.main=1", "actor.parallel.tensor=1", "algorithm.prompts_per_step=32"]
    run_of = ["run.name=mine", "trainer=smoke", "trainer.steps=12", "actor.optimizer.lr=3e-3"]
    run(*settings(), *models, *sizes, *run_of)
    lines = [json.loads(line) for line in (tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "actor/grad_norm" in line]
    found = [step["actor/teacher_kl"] for step in steps]
    assert len(found) == 12 and sum(found[-2:]) < 0.75 * sum(found[:2]), found
    assert {"timing_s/compute_teacher_log_prob", "timing_s/update_policy"} <= steps[0].keys()
    assert not any(name.startswith("reward/") for name in steps[0])


def test_its_command_passes_every_check(tmp_path: Path, problems: Problems, models: list[str]) -> None:
    write_files(PAGE, tmp_path)
    assert problems([[*settings(), *models]]) == [[]]


def test_a_flow_without_its_teacher_is_told_before_the_start(
    tmp_path: Path, problems: Problems, models: list[str]
) -> None:
    write_files(PAGE, tmp_path)
    file = tmp_path / FILE
    file.write_text(file.read_text().replace('("actor", "teacher")', '("actor",)'))
    ((told,),) = problems([[*settings(), *models]])
    assert told == (
        "algorithm.name: loss 'reverse_kl' reads the column 'teacher_log_probs', which is given by "
        "teacher.compute_teacher_log_prob; distillation does not name it among its columns"
    )
