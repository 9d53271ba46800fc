"""Parts of algorithms that cannot be put together. Each case changes one thing in settings that are sound."""

from __future__ import annotations

import pytest

from hybridflow import preflight
from hybridflow.algorithms import algorithms
from hybridflow.config import compose
from hybridflow.preflight import component_names, setting_checks

OPTIONS = sorted(file.stem for file in (compose.configs_dir() / "algorithm").glob("*.yaml"))
ADAPTIVE = "algorithm.reward_kl_control.name=adaptive +algorithm.reward_kl_control.options.target=0.1"


def found(*overrides: str) -> list[str]:
    composed = compose.compose("train", ["experiment=addition", *overrides])
    config = composed.to_config()
    names = component_names.problems(config, algorithms.get(config.algorithm.name))
    return [*names, *setting_checks.of_components(config, composed.origins)]


@pytest.mark.parametrize("option", OPTIONS)
def test_what_comes_with_hybridflow_is_sound(option: str) -> None:
    assert found(f"algorithm={option}") == []


@pytest.mark.parametrize(
    ("overrides", "start", "also"),
    [
        (["algorithm.policy_loss.name=ppo_clpi"], "algorithm.policy_loss.name: no policy loss is named", "'ppo_clip'"),
        (
            ["+algorithm.policy_loss.options.clip_hihg=1"],
            "algorithm.policy_loss.options.clip_hihg: no",
            "clip_high=0.2",
        ),
        (["algorithm.policy_loss.aggregate=mean"], "algorithm.policy_loss.aggregate: no loss", "sequence_mean"),
        (["algorithm.policy_loss.kl_estimator=k4"], "algorithm.policy_loss.kl_estimator: no KL", "k1, k2, k3"),
        (["algorithm.policy_loss.correction.name=tis"], "algorithm.policy_loss.correction.name: no", "token_truncated"),
        (["algorithm.reward_kl_estimator=k4"], "algorithm.reward_kl_estimator: no KL estimator", "k1, k2, k3"),
        (["algorithm.reward_shaping.name=long"], "algorithm.reward_shaping.name: no reward shaping", "overlong"),
        (
            ["algorithm.rollout_filter.name=unequal_groups"],
            "algorithm.rollout_filter.name: unequal_groups keeps no row",
            "samples_per_prompt = 1",
        ),
        (["algorithm.rollout_filter.name=equal"], "algorithm.rollout_filter.name: no rollout", "unequal_groups"),
        (
            ["algorithm.reward_kl_control.name=adaptive"],
            "algorithm.reward_kl_control.options.target: must be given",
            "gain",
        ),
        (
            ["algorithm.reward_kl_control.name=adaptive", "+algorithm.reward_kl_control.options.target=-1"],
            "algorithm.reward_kl_control.options.target: -1 given",
            "more than 0",
        ),
        (["algorithm.advantage.name=none"], "algorithm.advantage.name: nothing given, and ppo", "one of gae, g"),
        (["algorithm.advantage.name=gea"], "algorithm.advantage.name: no advantage estimator", "did you mean 'gae'"),
        (["+algorithm.advantage.options.lamda=1"], "algorithm.advantage.options.lamda: no such option", "lam=0.95"),
        (
            ["algorithm=rloo", "algorithm.advantage.name=gae"],
            "algorithm.advantage.name: 'gae' reads the column 'values', which is given by critic.compute_values",
            "rloo does not name it",
        ),
        (
            ["algorithm=rloo", "algorithm.advantage.name=remax"],
            "algorithm.advantage.name: 'remax' reads the column 'baseline_rewards'",
            "reward.compute_baseline",
        ),
        (["algorithm=grpo", "algorithm.samples_per_prompt=1"], "algorithm.samples_per_prompt: 1 given", "2 or more"),
        (["algorithm.pair_loss=signed_cost"], "algorithm.pair_loss: signed_cost given", "set it to bradley_terry"),
        (
            ["algorithm=reward_model", "algorithm.pair_loss=cost"],
            "algorithm.pair_loss: no loss of pairs",
            "signed_cost",
        ),
        (
            ["algorithm=cost_model", "task=addition_pairs"],
            "task.name: algorithm.pair_loss = signed_cost reads chosen_harmful and rejected_harmful",
            "hybridflow.tasks.HarmTask",
        ),
        (["algorithm=sft", "algorithm.rollout_filter.name=overlong"], "algorithm.rollout_filter.name: overlong", "sft"),
        (
            ["algorithm=safe_rlhf", "algorithm.lagrange.multiplier=101"],
            "algorithm.lagrange: Lagrange multiplier: multiplier is 101",
            "max = 100",
        ),
    ],
)
def test_what_cannot_work_is_the_one_problem(overrides: list[str], start: str, also: str) -> None:
    (problem,) = found(*overrides)
    assert problem.startswith(start) and also in problem


def test_a_loss_without_ratio_warns_of_a_second_step() -> None:
    rloo = ["experiment=addition", "algorithm=rloo"]
    assert preflight.warnings(compose.compose("train", rloo)) == []
    (line,) = preflight.warnings(compose.compose("train", [*rloo, "algorithm.minibatches=2"]))
    assert line.startswith("algorithm.policy_loss.name: pg has no ratio")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("algorithm.advantage.options.gamma=7", "algorithm.advantage.options.gamma: 7 given, at least 0 and at"),
        ("algorithm.advantage.options.lam=-0.1", "algorithm.advantage.options.lam: -0.1 given"),
        (
            "algorithm.advantage.options.whiten='false'",
            "algorithm.advantage.options.whiten: 'false' given, of type",
        ),
        (
            "+algorithm.policy_loss.options.clip_low=-0.2",
            "algorithm.policy_loss.options.clip_low: -0.2 given, at",
        ),
        (
            "+algorithm.policy_loss.options.clip_high='0.2'",
            "algorithm.policy_loss.options.clip_high: '0.2' given, a",
        ),
        ("+algorithm.policy_loss.options.dual_clip=1", "algorithm.policy_loss.options.dual_clip: 1 given, more than 1"),
        (
            "algorithm.policy_loss.correction.name=token_masked +algorithm.policy_loss.correction.options.min=2",
            "algorithm.policy_loss.correction.options.min: 2 given, at least 0 and at most 1 expected",
        ),
        (
            "algorithm.reward_shaping.name=overlong +algorithm.reward_shaping.options.buffer=0",
            "algorithm.reward_shaping.options.buffer: 0 given, more than 0 and at most 1 expected",
        ),
        (
            f"{ADAPTIVE} +algorithm.reward_kl_control.options.gain=5",
            "algorithm.reward_kl_control.options.gain: 5 given, more than 0 and less than 5 expected",
        ),
    ],
)
def test_an_option_out_of_its_bounds_is_told_with_them(override: str, problem: str) -> None:
    (line,) = found(*override.split())
    assert line.startswith(problem)


@pytest.mark.parametrize(
    "override",
    [
        "+algorithm.policy_loss.options.clip_low=0 +algorithm.policy_loss.options.dual_clip=null",
        "algorithm.advantage.options={gamma:0,lam:1}",
        "algorithm.policy_loss.correction.name=row_masked +algorithm.policy_loss.correction.options.max=1",
        "algorithm.reward_shaping.name=sigmoid +algorithm.reward_shaping.options.reference=-3",
    ],
)
def test_an_option_on_the_edge_of_its_bounds_is_right(override: str) -> None:
    assert found(*override.split()) == []


def test_an_adaptive_coefficient_begins_above_nothing() -> None:
    assert found(*ADAPTIVE.split()) == []
    (line,) = found(*ADAPTIVE.split(), "algorithm.reward_kl_coef=0")
    assert line.startswith("algorithm.reward_kl_control: adaptive KL: coef is 0")


def test_another_part_over_the_options_of_the_first_says_how_to_drop_them() -> None:
    other = ["algorithm.advantage.name=reinforce_plus_plus"]
    (line,) = found(*other)
    assert line.startswith(
        "algorithm.advantage.options.lam: lam, whiten given, but reinforce_plus_plus takes gamma=1.0"
    )
    drops = [word.strip("'") for word in line.split() if word.startswith("'~")]
    assert drops == ["~algorithm.advantage.options.lam", "~algorithm.advantage.options.whiten"]
    assert found(*other, *drops) == []
    assert found(*other, *(f"{drop[1:]}=null" for drop in drops)) == [], "what a file can say"
