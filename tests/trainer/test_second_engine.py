"""PPO on engines of a user's plugin: workers, resharding and the trainer are ours, and know nothing of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.engines import transformers_engine
from tests.trainer.conftest import ONE_RANK, Launch, Ran

pytestmark = pytest.mark.ranks

SETTINGS = (
    "experiment=addition",
    "plugins=[transformers_engine]",
    *ONE_RANK,
    "actor.model.path=models/addition",
    "actor.engine=transformers",  # and with it the critic's
    "rollout.engine=transformers",
    "reference.engine=megatron",
    "algorithm.prompts_per_step=12",
    "algorithm.reward_kl_coef=0.1",
    "algorithm.reward_kl_estimator=k2",
    "algorithm.policy_loss.entropy_coef=0.01",  # so that every step learns, whatever the rewards are
    "algorithm.critic_warmup_steps=1",
    "trainer.steps=3",
    "trainer.save_every=3",
    "trainer.validation_prompts=8",
)


@pytest.fixture(scope="module")
def second(launch: Launch, place: Path) -> Ran:
    """Three steps of PPO: the first teaches the critic alone."""
    shutil.copy(transformers_engine.__file__, place)
    ran = launch("train", "second", *SETTINGS)
    assert ran.status == 0, ran.output
    return ran


def test_ppo_learns(second: Ran) -> None:
    assert [("actor/grad_norm" in step, "critic/grad_norm" in step) for step in second.steps] == [
        (False, True),
        (True, True),
        (True, True),
    ]
    assert all(step.get("actor/skipped_steps", 0) == 0 for step in second.steps)


def test_every_step_samples_with_the_weights_of_training(second: Ran) -> None:
    for step in second.steps:
        assert step["actor/rollout_log_prob_diff_max"] < 1e-5
        assert step["rollout/version_lag_max"] == 0


def test_log_probs_are_those_of_megatrons_reference_until_the_actor_learns(second: Ran) -> None:
    """Half the mean square of the difference, k2, of two engines in float32."""
    same, still, moved = (step["actor/kl"] for step in second.steps)
    assert 0 <= same < 1e-10 and 0 <= still < 1e-10
    assert moved > 1e-8


def test_what_it_leaves_is_a_model_and_a_checkpoint(second: Ran, place: Path) -> None:
    before = load_file(place / "models/addition/model.safetensors")
    after = load_file(second.folder / "model/model.safetensors")
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before if name.endswith("proj.weight"))
    assert list((second.folder / "checkpoints").rglob("state.json"))
