"""Which steps are taken: everything that was found stands in one of the scenarios, under settings that fit it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hybridflow import preflight
from hybridflow.conformance import scenarios as scenarios_module
from hybridflow.conformance import shared_rank  # noqa: F401  registers the graders that scenarios name
from hybridflow.conformance.scenarios import Scenario, ScenarioBuilder
from hybridflow.errors import ConfigError
from tests.conformance.conftest import FindIn

ALGORITHM = """
from hybridflow import algorithms

class Mine(algorithms.Algorithm):
    roles = ("actor", "reward"{roles})
    {more}

    def step(self, prompts): ...


algorithms.register("mine")(Mine)
"""
PARTS = """
from hybridflow.losses.advantages import advantages, needing
from hybridflow.losses.policy_losses import policy_losses
from hybridflow.losses.reward_shapings import reward_shapings
from hybridflow.losses.rollout_filters import rollout_filters
from hybridflow.losses.corrections import corrections
from hybridflow.losses.kl_estimators import kl_estimators
from hybridflow.losses.aggregations import aggregations
from hybridflow.losses.kl_controllers import kl_controllers

@advantages.register("my_values")
@needing("values")
def my_values(inputs): ...

@advantages.register("my_style")
@needing("style")
def my_style(inputs): ...

for registry in (policy_losses, reward_shapings, rollout_filters, corrections):
    registry.register("my_part")(lambda inputs: inputs)
kl_estimators.register("my_part")(lambda now, ref: now)
aggregations.register("my_part")(lambda lengths, tokens, rows, mask=None, *, limit=1: lengths)
kl_controllers.register("my_part")(lambda coef: None)
"""
WORKER = """
from hybridflow import Batch
from hybridflow.roles import Role, RewardRole, roles
from hybridflow.workers import Worker, workers

@workers.register("my_reward")
class MyReward(RewardRole[Batch], Worker): ...

@roles.register("my_role")
class MyRole(Role, Worker): ...
"""


@pytest.fixture
def scenarios(find_in: FindIn, tiny: Callable[..., Path], tmp_path: Path) -> Callable[[str], list[Scenario]]:
    """The scenarios of a module of that text, with options in `my_configs`."""

    def make(source: str) -> list[Scenario]:
        folder = tmp_path / "my_configs"
        return builder(source, folder if folder.is_dir() else None).scenarios()

    def builder(source: str, folder: Path | None) -> ScenarioBuilder:
        return ScenarioBuilder(find_in(source), tiny(layers=2, hidden=64, heads=2, kv_heads=2), ["my_module"], folder)

    make.builder = builder  # type: ignore[attr-defined]
    return make


@pytest.mark.parametrize(
    ("roles", "more", "advantage", "task"),
    [
        ("", "", "grpo", "addition"),
        (', "critic"', "", "gae", "addition"),
        (', "critic", "cost_critic", "cost"', "", "gae", "addition"),
        (', "reference"', "preferences = True; components = ('preference_loss',)", "none", "addition_pairs"),
        ("", "supervised = True; components = ()", "none", "addition"),
        ("", "supervised = True", "grpo", "addition"),
    ],
)
def test_an_algorithm_without_an_option_has_settings_of_one_like_it(
    scenarios: Callable[[str], list[Scenario]], roles: str, more: str, advantage: str, task: str
) -> None:
    (scenario,) = scenarios(ALGORITHM.format(roles=roles, more=more))
    assert (scenario.what, scenario.config.algorithm.advantage.name, scenario.config.task.name) == (
        "algorithm 'mine'",
        advantage,
        task,
    )
    assert preflight.problems(scenario.config) == []


def test_options_of_the_folder_are_played_in_their_place(
    scenarios: Callable[[str], list[Scenario]], tmp_path: Path
) -> None:
    folder = tmp_path / "my_configs" / "algorithm"
    folder.mkdir(parents=True)
    text = "name: mine\nadvantage: {name: grpo}\npolicy_loss: {name: my_part}\nsamples_per_prompt: 64\n"
    (folder / "mine_fast.yaml").write_text(text, encoding="utf-8")
    found = scenarios(ALGORITHM.format(roles="", more="") + PARTS)
    what = [scenario.what for scenario in found]
    assert what[0] == "algorithm=mine_fast" and "algorithm 'mine'" not in what and "policy loss 'my_part'" not in what
    assert found[0].config.algorithm.samples_per_prompt == 8


def test_options_of_other_modules_are_not_played(scenarios: Callable[[str], list[Scenario]], tmp_path: Path) -> None:
    folder = tmp_path / "my_configs" / "algorithm"
    folder.mkdir(parents=True)
    others = {
        "of_others": "name: theirs\nadvantage: {name: grpo}\n",
        "a_part_of_others": "name: grpo\nadvantage: {name: their_advantage}\n",
        "a_key_of_others": "name: grpo\ntheir_key: 1\n",
        "of_nobody": "name: grpo\nadvantage: {name: grpo}\n",
    }
    for name, text in {**others, "own": "name: grpo\nadvantage: {name: my_values}\n"}.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    what = [scenario.what for scenario in scenarios(PARTS)]
    assert what[0] == "algorithm=own" and not any(f"algorithm={name}" in what for name in others)


def test_a_mistake_in_an_option_of_ones_own_is_told(scenarios: Callable[[str], list[Scenario]], tmp_path: Path) -> None:
    folder = tmp_path / "my_configs" / "algorithm"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text("name: grpo\nadvantage: {name: my_values}\nsample: 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="sample"):
        scenarios(PARTS)


def test_each_part_stands_in_a_flow_that_gives_what_it_reads(scenarios: Callable[[str], list[Scenario]]) -> None:
    found = {scenario.what: scenario for scenario in scenarios(PARTS)}
    assert len(found) == 9
    assert found["advantage estimator 'my_values'"].config.algorithm.name == "ppo"
    (problem,) = preflight.problems(found.pop("advantage estimator 'my_style'").config)
    assert "'my_style' reads the column 'style', which is given by no role that is known" in problem
    assert [problem for scenario in found.values() for problem in preflight.problems(scenario.config)] == []


def test_a_part_prefers_a_flow_of_the_users(scenarios: Callable[[str], list[Scenario]]) -> None:
    source = ALGORITHM.format(roles="", more='columns = ("style",)') + PARTS
    found = {scenario.what: scenario.config.algorithm for scenario in scenarios(source)}
    assert found["advantage estimator 'my_style'"].name == "mine"


def test_workers_take_the_place_of_ours_and_roles_are_built(
    scenarios: Callable[[str], list[Scenario]],
) -> None:
    builder = scenarios.builder(WORKER, None)  # type: ignore[attr-defined]
    (scenario,) = builder.scenarios()
    assert scenario.config.reward.worker == "my_reward" and builder.extra_roles() == ["my_role", "reward"]


@pytest.mark.parametrize(("gpus", "slots"), [(0, 2), (1, 1), (8, 2)])
def test_there_are_no_more_slots_than_gpus(
    gpus: int, slots: int, scenarios: Callable[[str], list[Scenario]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that `hybridflow check` runs on any machine; without GPUs, two CPUs share the rows."""
    monkeypatch.setattr(scenarios_module, "local_gpus", lambda: gpus)
    (scenario, *_) = scenarios(ALGORITHM.format(roles="", more=""))
    assert scenario.config.placement.pools == {"main": slots}
