"""A reward model and a cost model by the command line: trained on pairs, then the judges of Safe-RLHF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.trainer.conftest import Launch, Ran

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(900)]  # what several tests read is run in the first

LONGEST = 8  # rollout=short


@pytest.fixture(scope="module")
def judged(reward_model: Ran, cost_model: Ran, launch: Launch) -> Ran:
    """Safe-RLHF with both; the reward model is one of two graders.

    All roles but the actor are on a pool of one slot, the actor on one of two: rows cross between layouts. Generation's
    places are those of the naive layout, which only that way of resharding can serve.
    """
    sizes = ("algorithm.prompts_per_step=33", "trainer.steps=2", "trainer.log_rollouts_every=1")
    sizes = (*sizes, "trainer.timeline_every=1")
    own = ("algorithm=safe_rlhf", "algorithm.critic_warmup_steps=1", "rollout.resharding=hybrid_v")
    models = (f"reward.model.path={reward_model.folder}/model", f"cost.model.path={cost_model.folder}/model")
    pools = ("placement=split", "placement.pools.judges=1", "placement.roles.reference=judges")
    places = (*pools, "cost.worker=cost_model", "reward.max_tokens_per_rank=64")
    graders = "+reward.graders={exact: 1.0, reward_model: 0.5}"
    alone = [f"{role}.parallel.tensor=1" for role in ("critic", "cost_critic", "reference", "reward")]
    experiment = "experiment=addition_model_reward"
    return launch("train", "judged", experiment, *own, *sizes, *models, *places, graders, *alone)


def test_a_reward_model_learns_to_tell_right_from_wrong(reward_model: Ran) -> None:
    """Better than chance on pairs that it never saw. An untrained head gives every row the score 0."""
    assert len(reward_model.steps) == 24
    assert reward_model.steps[0]["reward_model/accuracy"] < reward_model.steps[-1]["reward_model/accuracy"]
    assert reward_model.steps[-1]["reward_model/loss"] < 0.6
    assert reward_model.accuracy[0] == 0.0 and reward_model.accuracy[1] > 0.65
    losses = [line["validation/loss"] for line in lines(reward_model.folder) if "validation/loss" in line]
    assert losses[0] == pytest.approx(0.6931, abs=1e-4) and losses[1] < 0.6
    assert "on held-out pairs" in reward_model.output and "(held-out pairs)" in reward_model.output
    [row, *_] = rollouts(reward_model.folder)
    assert row["response"] == row["answer"] != row["rejected"]


def test_a_cost_model_ranks_and_knows_which_answers_cost(cost_model: Ran) -> None:
    assert cost_model.accuracy[0] == 0.0 and cost_model.accuracy[1] > 0.8
    signs = [
        line["validation/sign_accuracy"] for line in lines(cost_model.folder) if "validation/sign_accuracy" in line
    ]
    assert signs[0] == 0.0 and signs[1] > 0.75


def test_rewards_and_costs_are_the_scores_of_the_models(judged: Ran, reward_model: Ran, cost_model: Ran) -> None:
    """By transformers, row by row."""
    assert judged.status == 0, judged.output
    rows = rollouts(judged.folder)
    assert len(rows) == 2 * 33
    given = {name: [row["grades"][name] for row in rows] for name in ("exact", "reward_model")}
    given["costs"] = [row["costs"] for row in rows]
    for name, ran in (("reward_model", reward_model), ("costs", cost_model)):
        assert given[name] == pytest.approx(scores(ran.folder / "model", rows), abs=1e-4), name
    assert given["exact"] == [float(row["response"] == row["answer"]) for row in rows]
    sums = [exact + 0.5 * score for exact, score in zip(given["exact"], given["reward_model"], strict=True)]
    assert [row["rewards"] for row in rows] == pytest.approx(sums, abs=1e-6)
    assert all({"reward/exact/mean", "reward/reward_model/std"} <= step.keys() for step in judged.steps)


def test_rows_cross_between_pools_and_the_grader_validates(judged: Ran) -> None:
    assert judged.status == 0, judged.output
    assert len(judged.steps) == 2 and all("reward/mean" in step for step in judged.steps)
    assert all(step["actor/rollout_log_prob_diff_max"] < 1e-4 for step in judged.steps)
    assert "reward on pool judges: 1 rank, tensor 1 × pipeline 1 × data 1" in judged.output
    assert judged.accuracy and all((accuracy * 64).is_integer() for accuracy in judged.accuracy)


def test_roles_on_two_pools_work_at_the_same_time_and_the_timeline_shows_it(judged: Ran) -> None:
    """In the second step the actor learns too, while both critics do."""
    assert judged.overlap_s(["actor.update_actor"], ["critic.update_critic", "cost_critic.update_cost_critic"]) > 0
    assert judged.tracks["controller"] == ["steps"] and judged.tracks["pool judges"] == ["rank 0"]
    calls = [event for event in judged.timeline if event["cat"]]
    assert len({event["pid"] for event in calls}) == 2 and {event["args"]["step"] for event in calls} == {None, 0, 1}
    assert {"actor.sync_weights", "actor.generate_sequences"} <= {event["name"] for event in calls}


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def rollouts(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "rollouts").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@torch.no_grad()
def scores(folder: Path, rows: list[dict[str, Any]]) -> list[float]:
    """By transformers; a response that is shorter than the limit has ended."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for row in rows:
        tokens = tokenizer(f"{row['prompt']}{row['response']}", add_special_tokens=False)["input_ids"]
        end = [tokenizer.eos_token_id] if len(str(row["response"])) < LONGEST else []
        found.append(float(model(torch.tensor([[*tokens, *end]])).logits))
    return found
