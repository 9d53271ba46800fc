"""Every algorithm under every schedule on every placement: it runs, or is refused for a reason that holds there."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from omegaconf import OmegaConf

from hybridflow.algorithms import algorithms
from hybridflow.config import compose
from hybridflow.config.schema import AlgorithmConfig, Config, ModelConfig
from hybridflow.placement import problems as placement_problems
from hybridflow.placement import resolve
from hybridflow.preflight import flow_checks

ONE_MODEL_EACH = ("critic", "reference", "reward", "cost", "cost_critic")
# By name: the slots of pools, and the pools of roles.
PLACEMENTS: dict[str, tuple[dict[str, int], dict[str, str]]] = {
    "colocated": ({"main": 2}, {}),
    "split": ({"policy": 2, "judges": 2}, {"reference": "policy", "critic": "judges", "reward": "judges"}),
    "standalone": ({"actor": 2} | dict.fromkeys(ONE_MODEL_EACH, 1), {role: role for role in ONE_MODEL_EACH}),
    "rollout apart": ({"train": 2, "rollout": 1}, {"rollout": "rollout"}),
    "split, rollout apart": (
        {"policy": 2, "judges": 2, "rollout": 1},
        {"critic": "judges", "reward": "judges", "rollout": "rollout"},
    ),
    "rollout beside judges": ({"policy": 2, "judges": 2}, {"critic": "judges", "rollout": "judges"}),
    "actor on the second pool": ({"judges": 2, "policy": 2}, {"actor": "policy"}),
}
APART = ("rollout apart", "split, rollout apart", "rollout beside judges")
SCHEDULES = ("sync", "one_step_off", "async", "stream")
BY_A_MODEL = "ppo with a reward model"
ALGORITHMS = ("ppo", BY_A_MODEL, "grpo", "dapo", "remax", "safe_rlhf", "dpo", "sft", "reward_model")
SAMPLE_NOTHING = ("dpo", "sft", "reward_model")


@cache
def composed() -> Config:
    """Settings under which each role fits one rank."""
    config = compose.compose("train", ["experiment=addition"]).to_config()
    for role in (*ONE_MODEL_EACH, "actor"):
        getattr(config, role).parallel.tensor = 1
    return config


def settings_of(algorithm: str) -> Config:
    """Those settings with the algorithm's own."""
    option = "ppo" if algorithm == BY_A_MODEL else algorithm
    own = OmegaConf.load(compose.configs_dir() / "algorithm" / f"{option}.yaml")
    chosen: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(AlgorithmConfig), own))
    config = replace(composed(), algorithm=chosen)
    judge = replace(config.reward, worker="model", model=ModelConfig(path="models/judge"))
    return replace(config, reward=judge) if algorithm == BY_A_MODEL else config


def found(config: Config, schedule: str, placement: str) -> tuple[Config, list[str]]:
    """Settings of a run, and what keeps them from being one, of the flow and of the placement."""
    pools, roles = PLACEMENTS[placement]
    places = replace(config.placement, pools=pools, roles=roles)
    config = replace(config, trainer=replace(config.trainer, schedule=schedule), placement=places)
    flow = algorithms.get(config.algorithm.name)
    return config, [*flow_checks.problems(config, flow), *placement_problems(config, flow.roles_of(config.algorithm))]


def reasons(algorithm: str, schedule: str, placement: str) -> list[str]:
    """Why such a run cannot be, in other words than the checks': none, and it runs."""
    if schedule == "sync":
        return []
    if algorithm in SAMPLE_NOTHING:
        return ["samples nothing"]
    alone = [] if placement in APART else ["generation needs a pool of its own"]
    if schedule != "stream" or algorithm in ("grpo", "remax"):
        return alone
    if algorithm == "dapo":
        return [*alone, "chooses among all rows of a step", "draws further prompts within a step"]
    return [*alone, "gae is not declared `independent`", "has other models that learn"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_refused_cannot_be_and_all_else_is_placed(algorithm: str) -> None:
    settings = settings_of(algorithm)
    for schedule in SCHEDULES:
        for placement in PLACEMENTS:
            config, problems = found(settings, schedule, placement)
            expected = reasons(algorithm, schedule, placement)
            what = f"{algorithm}, {schedule}, {placement}: {problems}"
            assert all(any(reason in problem for problem in problems) for reason in expected), what
            assert bool(problems) == bool(expected), what
            called = algorithms.get(config.algorithm.name).roles_of(config.algorithm)
            placed = resolve(config, called)
            assert {role.name for role in placed.roles} >= set(called)
            assert placed.is_disaggregated == (placement in APART and "actor" in called)
