"""docs/algorithms.md: its algorithm trains a model, with the task of docs/tasks.md; its commands pass all checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridflow.algorithms import algorithms
from tests.docs.blocks import blocks, commands, write_files
from tests.docs.conftest import Problems, Run

PAGE = "docs/algorithms.md"
TASKS = "docs/tasks.md"


def write_task_files(folder: Path) -> None:
    """The task's page says where its two YAML blocks belong."""
    write_files(TASKS, folder)
    option, experiment = (block.text for block in blocks(TASKS) if block.language == "yaml")
    for name, text in (("task", option), ("experiment", experiment)):
        (folder / "my_configs" / name).mkdir(parents=True, exist_ok=True)
        (folder / "my_configs" / name / "chains.yaml").write_text(text, encoding="utf-8")


@pytest.fixture
def model(tiny: Callable[..., Path]) -> Path:
    return tiny(layers=2, hidden=64, heads=2, kv_heads=2)


@pytest.mark.ranks
def test_the_algorithm_trains(tmp_path: Path, run: Run, model: Path) -> None:
    """Two steps on real engines; the model moves."""
    assert write_files(PAGE, tmp_path) == ["my_rl.py", "my_configs/algorithm/my_rloo.yaml", "test_my_rl.py"]
    write_task_files(tmp_path)
    sizes = ["algorithm.prompts_per_step=8", "placement.pools.main=1", "actor.parallel.tensor=1"]
    own = ["experiment=chains", "algorithm=my_rloo", "plugins=[my_sums,my_rl]", "run.name=mine", "trainer=smoke"]
    run("hybridflow", "train", "-cd", "my_configs", *own, f"actor.model.path={model}", *sizes)
    lines = [json.loads(line) for line in (tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "actor/grad_norm" in line]
    assert len(steps) == 2 and all(line["actor/rollout_log_prob_diff_max"] < 1e-5 for line in steps)
    called = {name.removeprefix("timing_s/") for name in steps[0] if name.startswith("timing_s/")}
    assert {"generate_sequences", "compute_reward", "compute_advantage", "update_actor"} <= called
    assert not {"compute_values", "compute_ref_log_prob"} & called
    assert any(line["actor/grad_norm"] > 0 for line in steps)
    rows = [json.loads(line) for file in (tmp_path / "runs/mine/rollouts").iterdir() for line in file.open()]
    assert len(rows) == 2 * 8 * 4 and {row["step"] for row in rows} == {0, 1}


def test_its_own_test_passes(tmp_path: Path, run: Run) -> None:
    write_files(PAGE, tmp_path)
    assert "1 passed" in run("python", "-m", "pytest", "-q", "test_my_rl.py").stdout


def test_its_commands_pass_every_check(tmp_path: Path, problems: Problems, model: Path) -> None:
    write_files(PAGE, tmp_path)
    write_task_files(tmp_path)
    found = [*commands(PAGE, "hybridflow train"), *commands(TASKS, "hybridflow train")]
    assert len(found) == 6
    assert problems([[*command, f"actor.model.path={model}"] for command in found]) == [[]] * 6


def test_the_flow_is_as_short_as_promised() -> None:
    text = next(block.text for block in blocks(PAGE) if block.title == "my_rl.py")
    flow = text.partition("    def step(self, prompts):\n")[2].partition("\n\n")[0]
    assert 0 < len(flow.splitlines()) <= 15


def test_the_algorithms_that_it_names_exist() -> None:
    assert {"ppo", "grpo"} <= set(algorithms)
