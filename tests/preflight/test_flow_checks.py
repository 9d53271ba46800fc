"""Flows that a run would find out to be none only when it is under way."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hybridflow.algorithms import Algorithm, algorithms
from hybridflow.config import compose
from hybridflow.preflight import flow_checks

CONFIG = compose.compose("train", ["experiment=addition"]).to_config()


def problems(**attributes: Any) -> list[str]:
    flow = {"roles": ("actor", "reward"), "step": lambda self, prompts: prompts} | attributes
    return list(flow_checks.problems(CONFIG, type("Mine", (Algorithm,), flow)))


@pytest.mark.parametrize("name", ["ppo", "grpo", "dapo", "remax", "safe_rlhf", "sft", "reward_model", "dpo"])
def test_ours_are_flows(name: str) -> None:
    assert list(flow_checks.problems(CONFIG, algorithms.get(name))) == []


def test_a_flow_is_step_or_learn() -> None:
    assert problems() == problems(step=Algorithm.step, learn=lambda self, rollout: rollout) == []
    [line] = problems(step=Algorithm.step, rollout=lambda self, prompts: prompts)
    assert line == "algorithm.name: ppo has neither `learn` nor `step`; write one of them"


def test_the_learner_has_a_model_that_learns() -> None:
    [line] = problems(learner="critic")
    assert "its learner 'critic', which is not among its roles (actor, reward)" in line
    [line] = problems(learner="reward")
    assert "its learner 'reward', which has none that learns; name another as its `learner` (actor)" in line


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (classmethod(lambda cls, config, role, steps: None), "gave None for actor"),
        (classmethod(lambda cls, config, role, steps: -1), "gave -1 for actor"),
        (lambda self, config, role, steps: 3, "raised TypeError: .*missing 1 required"),
        (classmethod(lambda cls, config, role, steps: {}["x"]), "raised KeyError: 'x'; it is a classmethod"),
    ],
)
def test_planned_updates_are_numbers(plan: Any, told: str) -> None:
    [line] = problems(planned_updates=plan)
    assert line.startswith("algorithm.name: ppo.planned_updates ")
    assert re.search(told, line)
