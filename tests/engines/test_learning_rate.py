"""Rates of a run's updates, against transformers' own schedules; and how many updates each role plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import optimization

from hybridflow.algorithms import algorithms
from hybridflow.config.schema import AlgorithmConfig as Settings
from hybridflow.config.schema import Decay, OptimizerConfig
from hybridflow.engines.learning_rate import learning_rate
from hybridflow.engines.megatron.optimizer import Schedule

LR = 3e-4


def ours(updates: int, **settings: Any) -> list[float]:
    return [learning_rate(update, OptimizerConfig(lr=LR, **settings), updates) for update in range(updates)]


def theirs(schedule: Callable[..., Any], updates: int, warmup: int, **options: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    given = schedule(optimizer, num_warmup_steps=warmup, num_training_steps=updates, **options)
    return [given.lr_lambdas[0](update) * LR for update in range(updates)]


@pytest.mark.parametrize(("updates", "warmup"), [(1, 0), (4, 0), (100, 0), (2, 1), (7, 3), (4, 3), (100, 50)])
@pytest.mark.parametrize("min_lr", [0.0, 1e-5])
@pytest.mark.parametrize("decay", list(Decay))
def test_rates_against_transformers(updates: int, warmup: int, min_lr: float, decay: Decay) -> None:
    """After the warm-up they are the same; in it each update has the rate that theirs gives to the next one."""
    schedule, options = {
        Decay.constant: (optimization.get_constant_schedule_with_warmup, {}),
        Decay.linear: (optimization.get_polynomial_decay_schedule_with_warmup, {"lr_end": min_lr, "power": 1.0}),
        Decay.cosine: (optimization.get_cosine_with_min_lr_schedule_with_warmup, {"min_lr": min_lr}),
    }[decay]
    if decay is Decay.constant:
        given = theirs(lambda optimizer, num_training_steps, **rest: schedule(optimizer, **rest), updates, warmup)
    else:
        given = theirs(schedule, updates, warmup, **options)
    found = ours(updates, decay=decay, min_lr=min_lr, warmup_steps=warmup)
    assert found[warmup:] == pytest.approx(given[warmup:], rel=1e-12)
    assert found[:warmup] == pytest.approx(given[1 : warmup + 1], rel=1e-12)


@pytest.mark.parametrize(
    ("schedule", "decay"),
    [
        (optimization.get_linear_schedule_with_warmup, Decay.linear),
        (optimization.get_cosine_schedule_with_warmup, Decay.cosine),
    ],
)
def test_their_usual_schedules(schedule: Callable[..., Any], decay: Decay) -> None:
    assert ours(4, decay=decay) == pytest.approx(theirs(schedule, 4, 0), rel=1e-12)
    assert ours(9, decay=decay, warmup_steps=2)[2:] == pytest.approx(theirs(schedule, 9, 2)[2:], rel=1e-12)


def test_no_update_is_without_effect() -> None:
    assert ours(4, decay=Decay.linear) == pytest.approx([LR, 0.75 * LR, 0.5 * LR, 0.25 * LR])
    for decay in Decay:
        assert ours(1, decay=decay) == [LR], "one update has the full rate"
        for warmup in range(6):
            rates = ours(5, decay=decay, warmup_steps=warmup)
            assert min(rates) > 0 and (warmup == 5 or max(rates) == LR)


def test_updates_that_were_not_planned_have_the_least_rate() -> None:
    settings = OptimizerConfig(lr=LR, min_lr=1e-5, decay=Decay.cosine)
    assert [learning_rate(update, settings, 4) for update in (4, 5, 8)] == [1e-5] * 3


class Inner:
    """What the schedule sets the rate of."""

    def __init__(self) -> None:
        self.param_groups: list[dict[str, Any]] = [{"wd_mult": 1.0}, {"wd_mult": 0.0}]


@pytest.mark.parametrize("resumed", [0, 1, 4, 6])
def test_the_schedule_of_the_engine(resumed: int) -> None:
    """Each update gets its rate, also where a checkpoint goes on; decay of biases and norms stays off."""
    settings = OptimizerConfig(lr=LR, decay=Decay.linear, warmup_steps=2, weight_decay=0.1)
    inner = Inner()
    schedule = Schedule(inner, settings, 6)
    schedule.step(resumed)  # as a checkpoint is taken up
    found = []
    for _ in range(resumed, 6):
        schedule.step(1)
        found.append(inner.param_groups[0]["lr"])
    assert found == pytest.approx(ours(6, decay=Decay.linear, warmup_steps=2)[resumed:])
    assert [group["weight_decay"] for group in inner.param_groups] == [0.1, 0.0]


@pytest.mark.parametrize(
    ("name", "role", "changes", "expected"),
    [
        ("ppo", "critic", {"critic_warmup_steps": 3}, 10 * 4 * 2),
        ("ppo", "actor", {"critic_warmup_steps": 3}, 7 * 4 * 2),
        ("ppo", "actor", {"critic_warmup_steps": 10}, 0),
        ("ppo", "actor", {"critic_warmup_steps": 12}, 0),
        ("safe_rlhf", "cost_critic", {"critic_warmup_steps": 3}, 10 * 4 * 2),
        ("safe_rlhf", "actor", {"critic_warmup_steps": 3}, 7 * 4 * 2),
        ("grpo", "actor", {}, 10 * 4 * 2),
        ("grpo", "actor", {"prompts_per_step": 1, "samples_per_prompt": 3}, 10 * 3 * 2),
        ("dapo", "actor", {}, 10 * 4 * 2),
        ("sft", "actor", {"prompts_per_step": 3, "samples_per_prompt": 1}, 10 * 3 * 2),
        ("reward_model", "reward_model", {}, 10 * 4 * 2),
    ],
)
def test_the_updates_that_a_role_plans(name: str, role: str, changes: dict[str, int], expected: int) -> None:
    """Four minibatches, or as many as there are rows, twice a step; the actor's only where it learns."""
    config = Settings(name=name, **{"prompts_per_step": 64, "minibatches": 4, "epochs": 2, **changes})
    assert algorithms.get(name).planned_updates(config, role, 10) == expected
