"""Two steps of training on what others have made: reasoning-gym's questions, verifiers' and OpenEnv's environments."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridflow.conformance.task_checks import any_text_tokenizer
from tests.environments.test_openenv import server
from tests.environments.test_verifiers import TASKSETS
from tests.tasks.chat_templates import CHATML
from tests.trainer.conftest import Ran
from tests.trainer.processes import start

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(600)]

SIZES = ("algorithm=grpo", "actor=small", "rollout=chat", "trainer.steps=2", "run.name=mine")
POOLS = {
    "sync": ("placement.pools.main=1",),
    "async": ("placement=rollout_pool", "placement.pools.train=1", "trainer.schedule=async"),
}
FEW = ("algorithm.prompts_per_step=2", "algorithm.samples_per_prompt=2", "algorithm.minibatches=1")
TOLD = ("trainer.log_rollouts_every=1", "trainer.validate_every=0", "algorithm.policy_loss.entropy_coef=0.01")
TURNS = (
    "environment.max_turn_tokens=8",
    "environment.max_turns=2",
    "rollout.max_response_tokens=160",
    "rollout.max_sequence_tokens=256",
)
STOPS = f"rollout.stop_token_ids={list(range(1, 200))}".replace(" ", "")  # most bytes: a turn is short, and ended


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Path]) -> Path:
    """A tiny model that reads and writes any text, in chats."""
    folder = tmp_path_factory.mktemp("chatting") / "model"
    tokenizer = any_text_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    made = tiny(layers=2, hidden=64, heads=2, kv_heads=2, vocab=len(tokenizer))
    folder.mkdir()
    for file in made.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer.save_pretrained(folder)
    return folder


def trained(
    model: Path, place: Path, *settings: str, schedule: str = "sync", **environment: str
) -> tuple[Ran, list[dict[str, Any]]]:
    """A run, and its rows."""
    run = ["train", *SIZES, *POOLS[schedule], *FEW, *TOLD, f"actor.model.path={model}", *settings]
    process = start(run, place, **environment)
    output, _ = process.communicate(timeout=500)
    ran = Ran(process.returncode, output, place / "runs/mine")
    assert ran.status == 0, ran.output
    assert len(ran.steps) == 2
    files = sorted((ran.folder / "rollouts").glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(rows) == 2 * 2 * 2
    return ran, rows


def assert_turns(ran: Ran) -> None:
    """Turns are learned as they were sampled, and no row is lost."""
    fresh = [step for step in ran.steps if step["rollout/version_lag_max"] == 0]
    assert fresh and all(step["actor/rollout_log_prob_diff_max"] < 1e-4 for step in fresh)
    talked = [step for step in ran.steps if "environment/turns" in step]  # by async, those in which some have ended
    assert talked and all(step["environment/failed_share"] == 0 for step in talked)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [*POOLS])
def test_an_environment_of_verifiers(schedule: str, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("verifiers.v1", reason="verifiers is not installed: pip install 'hybridflow[verifiers]'")
    taskset = ("task=verifiers", "task.options.taskset=short_talk", "+task.options.held_out_rows=2")
    settings = (*taskset, "environment=verifiers", "reward=environment", STOPS, *TURNS)
    ran, rows = trained(model, tmp_path, *settings, schedule=schedule, PYTHONPATH=str(TASKSETS))
    assert_turns(ran)
    talked = [row for row in rows if row["turns"] == 2]
    assert talked and all(row["rewards"] > 0 and "Why " in row["response"] for row in talked)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [*POOLS])
def test_an_environment_of_openenv(schedule: str, model: Path, tmp_path: Path) -> None:
    with server() as url:
        rows_of = ("task=openenv", f"task.options.url={url}", "+task.options.observation=told")
        size = ("+task.options.train_rows=8", "+task.options.held_out_rows=2")
        fields = ("+environment.options.action=guess", "+environment.options.observation=told")
        settings = (*rows_of, *size, "environment=openenv", *fields, "reward=environment", STOPS, *TURNS)
        ran, rows = trained(model, tmp_path, *settings, schedule=schedule)
    assert_turns(ran)
    refused = [step.get("environment/refused_actions", 0.0) for step in ran.steps]
    assert max(refused) > 0, "it writes no numbers yet"
    talked = [row for row in rows if row["turns"] == 2]
    assert any("error: " in row["response"] for row in talked)


@pytest.mark.system
def test_questions_of_reasoning_gym(model: Path, tmp_path: Path) -> None:
    asked = ("task=reasoning_gym", "task.options.dataset=basic_arithmetic", "reward.grader=reasoning_gym")
    settings = (*asked, "rollout.max_response_tokens=16", "rollout.max_sequence_tokens=256")
    _, rows = trained(model, tmp_path, *settings)
    assert all(0 <= row["rewards"] <= 1 and row["source"] == "basic_arithmetic" for row in rows)
