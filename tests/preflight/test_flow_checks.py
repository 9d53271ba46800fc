"""Flows that a run would find out to be none only when it is under way."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hybridflow import Batch, dispatch
from hybridflow.algorithms import Algorithm, algorithms
from hybridflow.algorithms.schedule import schedules
from hybridflow.config import compose
from hybridflow.losses.loss import Loss, LossInputs, losses
from hybridflow.losses.token_loss import TokenLoss
from hybridflow.preflight import component_checks, flow_checks
from hybridflow.roles import Role, roles
from hybridflow.trainer.schedules.paced_schedule import AsyncSchedule
from hybridflow.workers import Worker

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


def test_rows_are_not_kept_where_a_schedule_samples_ahead() -> None:
    overrides = ["experiment=addition", "algorithm=grpo", "placement=rollout_pool", "rollout.recovery=durable"]
    found = {}
    for schedule in ("sync", "one_step_off"):
        config = compose.compose("train", [*overrides, f"trainer.schedule={schedule}"]).to_config()
        found[schedule] = list(flow_checks.problems(config, algorithms.get("grpo")))
    [line] = found["one_step_off"]
    assert line.startswith("rollout.recovery: durable keeps rows of the very weights") and found["sync"] == []


LENT = ("experiment=addition", "algorithm=grpo", "placement=rollout_pool", "placement.lend_idle_slots=true")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("trainer.schedule=sync", ""),
        ("trainer.schedule=one_step_off", "trainer.schedule=one_step_off begins rows that lent slots would have to"),
        ("trainer.schedule=async", ""),
        (("trainer.schedule=async", "trainer.partial=false"), "trainer.partial=false lets rows under way finish"),
        (("trainer.schedule=async", "environment=guess"), "conversations (environment.name = guess) on lent slots"),
        (("trainer.schedule=async", "rollout.keep_kv_cache=true"), "rows on lent slots keep no keys and values"),
        (("trainer.schedule=own_pace_for_test", "trainer.partial=false"), "trainer.partial=false lets rows under way"),
        ("trainer.schedule=stream", "trainer.schedule=stream begins rows that lent slots would have to"),
        ("rollout.recovery=durable", "rollout.recovery=durable knows rows again by the layout that sampled them"),
    ],
)
def test_what_lent_slots_cannot_do_is_told(
    override: str | tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(schedules._components, "own_pace_for_test", type("OwnPace", (AsyncSchedule,), {}))
    overrides = [override] if isinstance(override, str) else [*override]
    config = compose.compose("train", [*LENT, *overrides]).to_config()
    found = list(flow_checks.problems(config, algorithms.get("grpo")))
    assert [line.startswith(f"placement.lend_idle_slots: true given, but {told}") for line in found] == [True] * bool(
        told
    )


def test_a_setting_that_a_schedule_does_not_heed_is_not_asked_for_by_lent_slots() -> None:
    config = compose.compose("train", [*LENT, "trainer.schedule=sync", "trainer.partial=false"]).to_config()
    [line] = flow_checks.problems(config, algorithms.get("grpo"))
    assert line == "trainer.partial: False given, which trainer.schedule=sync does not heed; leave it out"


@pytest.mark.parametrize(
    ("schedule", "what_to_do"),
    [
        (["trainer.schedule=async", "trainer.partial=false"], "trainer.partial=false; set that to true, or leave it"),
        (["trainer.schedule=sync"], "trainer.schedule=sync; take async, or leave it out"),
    ],
)
def test_a_cache_that_no_row_needs_is_told_with_what_to_take(schedule: list[str], what_to_do: str) -> None:
    overrides = ["experiment=addition", "algorithm=grpo", "placement=rollout_pool", "rollout.keep_kv_cache=true"]
    config = compose.compose("train", [*overrides, *schedule]).to_config()
    [line] = flow_checks.problems(config, algorithms.get("grpo"))
    assert what_to_do in line


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


def test_the_protocols_of_its_roles_exist() -> None:
    class Judge(Role, Worker):
        @dispatch.using("dp_prto", gives=["marks"])
        def mark(self, rows: Batch) -> Batch: ...

    roles.register("judge_for_test")(Judge)
    try:
        [line] = problems(roles=("actor", "judge_for_test"))
    finally:
        del roles._components["judge_for_test"]
    assert line.startswith(
        "algorithm.name: ppo calls the role judge_for_test: Judge.mark: no dispatch protocol is named 'dp_prto'; did"
    )


def test_a_loss_that_is_averaged_as_nobody_knows_is_told() -> None:
    class Odd(Loss):
        aggregate = "token_meen"

        def token_loss(self, inputs: LossInputs) -> TokenLoss: ...

    losses.register("odd_for_test")(Odd)
    flow = type("Mine", (Algorithm,), {"roles": ("actor",), "losses": ("odd_for_test",), "columns": ("group_id",)})
    try:
        [line] = [line for line in component_checks.problems(CONFIG, flow) if "odd_for_test" in line]
    finally:
        del losses._components["odd_for_test"]
    assert (
        "aggregate of loss 'odd_for_test': no loss aggregation is named 'token_meen'; did you mean 'token_mean'" in line
    )
