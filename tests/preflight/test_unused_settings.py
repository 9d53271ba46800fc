"""Settings without effect: refused where they were meant, told where they may serve another algorithm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hybridflow import preflight
from hybridflow.algorithms import Algorithm, algorithms
from hybridflow.algorithms.ppo import PPO
from hybridflow.config import compose
from hybridflow.errors import ConfigError
from hybridflow.preflight import unused_settings


def composed(*overrides: str, folder: Path | None = None) -> compose.Composed:
    return compose.compose("train", ["experiment=addition", *overrides], folder)


def found(job: compose.Composed) -> list[str]:
    config = job.to_config()
    return unused_settings.problems(config, algorithms.get(config.algorithm.name), job.origins)


def told(job: compose.Composed) -> list[str]:
    config = job.to_config()
    return unused_settings.warnings(config, algorithms.get(config.algorithm.name), job.origins, compose.configs_dir())


@pytest.mark.parametrize("name", sorted(algorithms))
def test_each_of_ours_says_what_it_heeds(name: str) -> None:
    assert isinstance(vars(algorithms.get(name)).get("heeds"), tuple)


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("sft", "policy_loss.kl_coef=0.1 policy_loss.entropy_coef=0.1 samples_per_prompt=4 reward_kl_coef=0.1"),
        ("sft", "critic_warmup_steps=2 value_loss.clip=0.1 preference_loss.beta=1 lagrange.lr=1 max_draws=3"),
        ("dpo", "policy_loss.kl_coef=0.1 policy_loss.entropy_coef=0.1 samples_per_prompt=4 advantage.name=gae"),
        (
            "dpo",
            "reward_kl_estimator=k2 rollout_filter.name=overlong reward_shaping.name=overlong pair_loss=signed_cost",
        ),
        ("reward_model", "preference_loss.beta=1 policy_loss.aggregate=sequence_mean samples_per_prompt=2"),
        ("cost_model", "lagrange.limit=1 policy_loss.correction.name=token_masked"),
        ("grpo", "critic_warmup_steps=2 value_loss.clip=0.1 preference_loss.beta=1 lagrange.lr=1 max_draws=3"),
        ("ppo", "preference_loss.beta=1 lagrange.limit=1 max_draws=3 pair_loss=signed_cost"),
    ],
)
def test_what_was_set_and_is_not_heeded_is_refused(algorithm: str, settings: str) -> None:
    keys = [f"algorithm.{setting}" for setting in settings.split()]
    problems = found(composed(f"algorithm={algorithm}", *keys))
    assert sorted(line.partition(":")[0] for line in problems) == sorted(key.partition("=")[0] for key in keys)
    assert all(f"{algorithm} has no use for it; leave it out" in line for line in problems)


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm=sft", "algorithm.epochs=2", "algorithm.minibatches=2", "algorithm.prompts_per_step=8"),
        ("algorithm=sft", "algorithm.samples_per_prompt=1", "algorithm.policy_loss.kl_coef=0"),
        ("algorithm=dpo", "algorithm.preference_loss.beta=1"),
        ("algorithm=safe_rlhf", "algorithm.lagrange.limit=1", "algorithm.critic_warmup_steps=2"),
        ("algorithm=dapo", "algorithm.max_draws=3", "algorithm.policy_loss.entropy_coef=0.1"),
        ("algorithm=grpo", "algorithm.reward_kl_coef=0.1", "algorithm.policy_loss.kl_coef=0"),
    ],
)
def test_what_is_heeded_or_at_its_default_is_right(overrides: tuple[str, ...]) -> None:
    assert found(composed(*overrides)) == []


def test_an_experiment_may_serve_several_algorithms(tmp_path: Path) -> None:
    experiment, option = tmp_path / "experiment/mine.yaml", tmp_path / "algorithm/my_dpo.yaml"
    for file in (experiment, option):
        file.parent.mkdir()
    experiment.write_text(
        "# @package _global_\ndefaults: [addition]\n"
        "algorithm:\n  samples_per_prompt: 4\n  policy_loss: {entropy_coef: 1}\n"
    )
    option.write_text("name: dpo\nadvantage: {name: none}\npolicy_loss:\n  entropy_coef: 0.1\n")
    job = compose.compose("train", ["experiment=mine", "algorithm=dpo"], tmp_path)
    assert found(job) == []
    first, second = told(job)
    assert first.startswith("algorithm.samples_per_prompt: no effect, as dpo does not heed it (") and ":4)" in first
    assert second.startswith("algorithm.policy_loss.entropy_coef: no effect")
    (problem,) = found(composed("algorithm=my_dpo", folder=tmp_path))
    assert problem.startswith("algorithm.policy_loss.entropy_coef: 0.1 given, but dpo has no use for it")


def test_what_an_experiment_sets_for_ppo_does_not_stop_grpo(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(
        "# @package _global_\ndefaults: [addition]\nalgorithm:\n  critic_warmup_steps: 8\n  reward_kl_coef: 0.1\n"
    )
    for algorithm in ("ppo", "grpo", "sft"):
        preflight.load("train", ["experiment=mine", f"algorithm={algorithm}"], tmp_path)
    with pytest.raises(ConfigError, match="critic_warmup_steps: 2 given, but grpo has no use for it"):
        preflight.load("train", ["experiment=mine", "algorithm=grpo", "algorithm.critic_warmup_steps=2"], tmp_path)


def test_what_is_for_every_stage_may_be_of_no_use_to_one() -> None:
    job = composed("algorithm=sft", "algorithm.samples_per_prompt=4", "algorithm.policy_loss.entropy_coef=0.1")
    job = replace(job, origins=replace(job.origins, shared=frozenset({"algorithm.samples_per_prompt=4"})))
    assert [line.partition(":")[0] for line in found(job)] == ["algorithm.policy_loss.entropy_coef"]


def test_our_own_experiments_need_no_word() -> None:
    for algorithm in ("ppo", "grpo", "dpo", "sft"):
        assert told(composed(f"algorithm={algorithm}")) == []


def test_a_section_of_a_role_that_takes_no_part_is_told() -> None:
    (line,) = told(composed("algorithm=grpo", "critic.optimizer.lr=1e-5", "actor.parallel.tensor=1", "critic=as_actor"))
    assert line == "critic.optimizer.lr=1e-5: no effect, as grpo has no role critic"
    assert told(composed("critic.optimizer.lr=1e-5")) == []


def test_a_grader_has_no_model() -> None:
    (line,) = told(composed("reward.engine=nope", "reward.grader=last_number"))
    assert line.startswith("reward.engine=nope: no effect, as reward.worker = reward is a grader, which has no model; ")
    assert told(composed("reward.engine=nope", "reward.worker=model", "reward.model.path=a")) == []


def test_a_flow_that_does_not_say_what_it_heeds_is_held_to_its_parts_alone() -> None:
    job = composed("algorithm.max_draws=3", "algorithm.lagrange.lr=1", "algorithm.pair_loss=signed_cost")

    class Own(Algorithm):
        roles = ("actor", "reward")

    class Derived(PPO):
        """It may read `max_draws`."""

    class Declared(PPO):
        heeds = (*PPO.heeds, "max_draws")

    def keys(flow: type[Algorithm]) -> list[str]:
        return [line.partition(":")[0] for line in unused_settings.problems(job.to_config(), flow, job.origins)]

    assert keys(Own) == keys(Derived) == ["algorithm.pair_loss"]
    assert keys(Declared) == ["algorithm.pair_loss", "algorithm.lagrange.lr"]
