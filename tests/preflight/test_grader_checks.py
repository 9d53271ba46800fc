"""Graders that settings name: registered, with options that they take, and rewards that their estimator sees."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from hybridflow.config import compose
from hybridflow.config.schema import Config
from hybridflow.preflight import setting_checks
from tests.tasks import child_graders  # noqa: F401  registers more graders

COMPOSED = compose.compose("train", ["experiment=addition"])
COMPOSED_GDPO = compose.compose("train", ["experiment=addition", "algorithm=gdpo"])


def told(*lines: str, composed: compose.Composed = COMPOSED) -> list[str]:
    """The problems of settings with some changes, in YAML."""
    OmegaConf.set_struct(composed.tree, False)
    config: Config = OmegaConf.to_object(OmegaConf.merge(composed.tree, *map(OmegaConf.create, lines)))  # type: ignore[assignment]
    return setting_checks.problems(config) or setting_checks.of_components(config)


TWO = "reward: {graders: {exact: 1.0, doubling: 0.1}}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("reward: {grader: exat}", "reward.grader: no grader is named 'exat'; did you mean 'exact'?"),
        ("reward: {graders: {exat: 1.0}}", "reward.graders: no grader is named 'exat'; did you mean 'exact'?"),
        (
            "reward: {grader: doubling, grader_options: {doubling: {tims: 3}}}",
            "reward.grader_options.doubling.tims: no such option; did you mean 'times'?",
        ),
        (
            "reward: {grader: doubling, grader_options: {doubling: {times: often}}}",
            "reward.grader_options.doubling.times: 'often' given, a number was expected",
        ),
        ("reward: {grader_options: {exact: 3}}", "reward.grader_options.exact: 3 given; options by name were expected"),
        ("reward: {grader_options: {other: {}}}", "reward.grader_options.other: no grader of the run is named so"),
        (
            "reward: {graders: {doubling: 1.0}, accuracy_grader: exact}",
            "reward.accuracy_grader: 'exact' given, which is none of the graders; there is doubling",
        ),
        (
            "reward: {graders: {exact: 1.0, reward_model: 0.5}}",
            "reward.graders: reward_model is the model of reward.",
        ),
        (
            "reward: {worker: model, graders: {reward_model: 0.5}}",
            "reward.graders: reward_model alone given, and a validation asks graders only; add the one that says",
        ),
        (
            "reward: {grader_sources: {other: [a]}}",
            "reward.grader_sources.other: no grader of the run is named so; there is exact",
        ),
        (
            "reward: {grader_sources: {exact: []}}",
            "reward.grader_sources.exact: no source given; name those whose",
        ),
        ("algorithm: {reward_shapings: {clip: {lo: 1}}}", "algorithm.reward_shapings.clip.lo: no such option; did you"),
        (
            "reward: {graders: {doubling: 0.0}}",
            "reward.graders: the weight of doubling is 0, so all responses would be alike",
        ),
        ("algorithm: {reward_shapings: {clp: {}}}", "algorithm.reward_shapings: no reward shaping is named 'clp'; did"),
        (
            "algorithm: {reward_shapings: {clip: {low: 1, high: -1}}}",
            "algorithm.reward_shapings.clip: reward shaping 'clip': low is 1, above high, -1",
        ),
        ("algorithm: {reward_shapings: {clip: 3}}", "algorithm.reward_shapings.clip: 3 given; its options by name"),
    ],
)
def test_a_mistake_is_told_with_its_key(line: str, problem: str) -> None:
    (found,) = told(line)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "line",
    [
        TWO,
        "reward: {worker: model, graders: {exact: 1.0, reward_model: 0.5}, grader_sources: {reward_model: [a]}}",
        "reward: {grader: doubling, grader_options: {doubling: {times: 3}}}",
        "algorithm: {reward_shapings: {running_norm: null, clip: {low: -1}}}",
    ],
)
def test_what_is_right_is_taken(line: str) -> None:
    assert told(line) == []


def test_costs_have_no_values_of_tokens() -> None:
    cost = compose.compose("train", ["experiment=addition", "algorithm=safe_rlhf", "cost.grader=steps"])
    (found,) = told(composed=cost)
    assert found.startswith("cost.grader: steps gives values of tokens or steps, which costs have none of")


@pytest.mark.parametrize(
    "key", ["reward_shaping: {name: overlong}", "reward_shapings: {clip: {}}", "reward_kl_coef: 0.1"]
)
def test_what_would_change_grades_is_refused_where_they_are_read_as_they_are(key: str) -> None:
    line = f"algorithm: {{{key}}}"
    assert told(line, composed=COMPOSED_GDPO) == [], "of one grader the reward is read, which is shaped"
    (found,) = told(line, TWO, composed=COMPOSED_GDPO)
    assert (
        found.startswith(f"algorithm.{key.partition(':')[0]}") and "takes the grades of reward.graders as they" in found
    )
    assert told(TWO, composed=COMPOSED_GDPO) == []


def test_several_graders_need_no_other_named_beside_them() -> None:
    own = ["task=addition", "+reward.graders={last_number: 1.0, exact: 0.5}", "run.name=a", "actor.model.path=b"]
    config = compose.compose("train", own).to_config()
    assert config.reward.grader == "last_number" and list(config.reward.graders) == ["last_number", "exact"]
    own[1] = "+reward.graders={reward_model: 1.0, exact: 0.5}"
    assert compose.compose("train", own).to_config().reward.grader == "exact"
