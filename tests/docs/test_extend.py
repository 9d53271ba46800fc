"""docs/extend.md: its examples are as short as promised, meet all expectations on ranks, and train a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.blocks import blocks, commands, write_files
from tests.docs.conftest import Meets, Problems, Run
from tests.docs.test_algorithms import write_task_files

pytestmark = pytest.mark.processes

PAGE = "docs/extend.md"
MOST_LINES = {"my_pkg/advantage.py": 10, "my_pkg/loss.py": 15, "my_pkg/two_rewards.py": 45, "my_pkg/halves.py": 20}


@pytest.fixture
def model(tiny: Callable[..., Path]) -> Path:
    return tiny(layers=2, hidden=64, heads=2, kv_heads=2)


@pytest.mark.parametrize("name", MOST_LINES)
def test_the_examples_are_as_short_as_promised(name: str) -> None:
    """Lines that are not blank; none is long or holds two statements."""
    (text,) = (block.text for block in blocks(PAGE) if block.title == name)
    lines = [line for line in text.splitlines() if line.strip()]
    assert 0 < len(lines) <= MOST_LINES[name]
    assert max(map(len, lines)) <= 120 and ";" not in text


@pytest.mark.ranks
def test_its_check_meets_all_expectations(meets: Meets) -> None:
    """Every example, as a function and for two steps on real engines: a flow of one method, and one in halves."""
    assert meets(PAGE) == [
        "role 'brevity'",
        "advantage estimator 'batch_mean'",
        "advantage estimator 'both_rewards'",
        "policy loss 'ppo_penalty'",
        "algorithm=my_grpo",
        "algorithm=two_rewards",
        "algorithm 'in_halves'",
    ]


@pytest.mark.ranks
def test_the_algorithm_trains(tmp_path: Path, run: Run, model: Path) -> None:
    """Two steps of a run, with the task of docs/tasks.md; the model moves."""
    write_files(PAGE, tmp_path)
    write_task_files(tmp_path)
    sizes = ["algorithm.prompts_per_step=8", "placement.pools.main=1", "actor.parallel.tensor=1"]
    own = ["algorithm=two_rewards", "plugins=[my_sums,my_pkg.rl]", "run.name=mine", "trainer=smoke"]
    command = ["hybridflow", "train", "-cd", "my_configs", "experiment=chains"]
    run(*command, *own, f"actor.model.path={model}", *sizes)
    assert "brevity:\n  longest: 64\n" in (tmp_path / "runs/mine/config.yaml").read_text()
    lines = [json.loads(line) for line in (tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "actor/grad_norm" in line]
    assert len(steps) == 2 and all(line["actor/rollout_log_prob_diff_max"] < 1e-5 for line in steps)
    assert all(0 <= line["brevity/mean"] < 1 and line["actor/grad_norm"] > 0 for line in steps)
    called = {name.removeprefix("timing_s/") for name in steps[0] if name.startswith("timing_s/")}
    assert {"generate_sequences", "compute_reward", "compute_brevity", "compute_advantage", "update_actor"} <= called
    rows = [json.loads(line) for file in (tmp_path / "runs/mine/rollouts").iterdir() for line in file.open()]
    assert len(rows) == 2 * 8 * 8 and {row["step"] for row in rows} == {0, 1}


def test_its_own_test_passes(tmp_path: Path, run: Run) -> None:
    write_files(PAGE, tmp_path)
    assert "1 passed" in run("python", "-m", "pytest", "-q", "test_my_pkg.py").stdout


def test_its_commands_pass_every_check(tmp_path: Path, problems: Problems, model: Path) -> None:
    write_files(PAGE, tmp_path)
    found = commands(PAGE, "hybridflow train")
    assert len(found) == 4
    assert problems([[*command, f"actor.model.path={model}"] for command in found]) == [[]] * 4


def test_a_flow_that_does_not_name_its_column_is_told_as_the_page_says(
    tmp_path: Path, problems: Problems, model: Path
) -> None:
    write_files(PAGE, tmp_path)
    file = tmp_path / "my_pkg/two_rewards.py"
    file.write_text(file.read_text().replace('columns = ("group_id", "brevity")', ""))
    ((told,),) = problems([[*commands(PAGE, "hybridflow train")[1], f"actor.model.path={model}"]])
    page = " ".join((Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8").split())
    assert told in page


def test_the_table_has_its_options(tmp_path: Path, run: Run) -> None:
    write_files(PAGE, tmp_path)
    (command,) = commands(PAGE, "hybridflow algorithms")
    lines = run(*command).stdout.splitlines()
    assert "my_grpo\tarXiv 2402.03300\tactor*, reward\tadvantage batch_mean, loss ppo_penalty by token_mean" in lines
    assert "two_rewards\t\tactor*, reward, brevity\tadvantage both_rewards, loss ppo_clip by token_mean" in lines
