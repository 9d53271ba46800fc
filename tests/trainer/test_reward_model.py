"""A reward model by the command line: trained on pairs, then the reward of PPO."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.trainer.conftest import Launch, Ran

pytestmark = pytest.mark.ranks

LONGEST = 8  # rollout=short


@pytest.fixture(scope="module")
def trained(launch: Launch, warm: Ran) -> Ran:
    """Under the name that experiment=addition_model_reward takes its rewards from."""
    sizes = (
        "trainer.steps=40",
        "trainer.validate_every=0",
        "algorithm.prompts_per_step=129",
        "algorithm.minibatches=2",
    )
    return launch("train-reward", "addition_reward", "experiment=addition_reward", *sizes)


def test_it_learns_to_tell_right_from_wrong(trained: Ran) -> None:
    """Better than chance on pairs that it never saw. An untrained head gives every row the score 0."""
    assert trained.status == 0, trained.output
    assert len(trained.steps) == 40
    assert trained.steps[0]["reward_model/accuracy"] < trained.steps[-1]["reward_model/accuracy"]
    assert trained.steps[-1]["reward_model/loss"] < 0.6
    assert trained.accuracy[0] == 0.0 and trained.accuracy[1] > 0.65
    losses = [line["validation/loss"] for line in lines(trained.folder) if "validation/loss" in line]
    assert losses[0] == pytest.approx(0.6931, abs=1e-4) and losses[1] < 0.6
    assert "on held-out pairs" in trained.output and "(held-out pairs)" in trained.output
    [row, *_] = rollouts(trained.folder)
    assert row["response"] == row["answer"] != row["rejected"]


def test_ppo_takes_its_rewards_from_the_model(trained: Ran, launch: Launch) -> None:
    """Every reward is transformers' score of the row, while validation asks the grader.

    All roles but the actor are on a pool of one slot, the actor on one of two: rows cross between layouts. Generation's
    places are those of the naive layout, which only that way of resharding can serve.
    """
    assert trained.status == 0, trained.output
    sizes = ("algorithm.prompts_per_step=33", "trainer.steps=3", "trainer.log_rollouts_every=1")
    cuts = ("reward.max_tokens_per_rank=64", "algorithm.critic_warmup_steps=1", "rollout.resharding=hybrid_v")
    places = ("placement=split", "placement.pools.judges=1", "+placement.roles.reward=judges")
    alone = [f"{role}.parallel.tensor=1" for role in ("critic", "reference", "reward")]
    ran = launch("train", "rewarded", "experiment=addition_model_reward", *sizes, *cuts, *places, *alone)
    assert ran.status == 0, ran.output
    assert len(ran.steps) == 3 and all("reward/mean" in step for step in ran.steps)
    assert all(step["actor/rollout_log_prob_diff_max"] < 1e-4 for step in ran.steps)
    assert "reward on pool judges: 1 ranks, tensor 1 × pipeline 1 × data 1" in ran.output
    assert ran.accuracy and all((accuracy * 64).is_integer() for accuracy in ran.accuracy)
    rows = rollouts(ran.folder)
    assert len(rows) == 3 * 33
    expected = scores(trained.folder / "model", rows)
    assert [row["rewards"] for row in rows] == pytest.approx(expected, abs=1e-4)


def test_safe_rlhf_takes_its_costs_from_a_model_that_was_trained_for_it(launch: Launch, warm: Ran) -> None:
    """After some steps it ranks, and knows which answers have a 7; its scores are the costs of the next run."""
    assert warm.status == 0, warm.output
    sizes = ("trainer.steps=30", "trainer.validate_every=0", "algorithm.prompts_per_step=64")
    cost = launch("train-cost", "addition_cost", "experiment=addition_cost", *sizes)
    assert cost.status == 0, cost.output
    assert cost.accuracy[0] == 0.0 and cost.accuracy[1] > 0.8
    signs = [line["validation/sign_accuracy"] for line in lines(cost.folder) if "validation/sign_accuracy" in line]
    assert signs[0] == 0.0 and signs[1] > 0.75
    own = ("algorithm=safe_rlhf", "cost.worker=cost_model", f"cost.model.path={cost.folder / 'model'}")
    sizes = ("algorithm.prompts_per_step=33", "trainer.steps=2", "trainer.log_rollouts_every=1")
    ran = launch("train", "safe", "experiment=addition", *own, *sizes, "algorithm.critic_warmup_steps=1")
    assert ran.status == 0, ran.output
    rows = rollouts(ran.folder)
    assert len(rows) == 2 * 33 and {row["rewards"] for row in rows} <= {0.0, 1.0}
    assert [row["costs"] for row in rows] == pytest.approx(scores(cost.folder / "model", rows), abs=1e-4)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def rollouts(folder: Path) -> list[dict[str, object]]:
    files = sorted((folder / "rollouts").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@torch.no_grad()
def scores(folder: Path, rows: list[dict[str, object]]) -> list[float]:
    """By transformers; a response that is shorter than the limit has ended."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for row in rows:
        tokens = tokenizer(f"{row['prompt']}{row['response']}", add_special_tokens=False)["input_ids"]
        end = [tokenizer.eos_token_id] if len(str(row["response"])) < LONGEST else []
        found.append(float(model(torch.tensor([[*tokens, *end]])).logits))
    return found
