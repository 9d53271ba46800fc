"""What flows share, without any role."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hybridflow.algorithms import Algorithm, StepContext, algorithms
from hybridflow.algorithms.algorithm import made_rows
from hybridflow.batch import Batch, BatchRef, stacked
from hybridflow.config.schema import AlgorithmConfig as Settings
from hybridflow.errors import HybridFlowError
from hybridflow.preflight import load


def settings(*overrides: str) -> Settings:
    return load("train", ["experiment=addition", *overrides]).algorithm


@pytest.mark.parametrize(
    ("overrides", "pays"),
    [
        ((), True),
        (("algorithm.reward_kl_coef=0",), False),
        (("algorithm.reward_kl_coef=0", "algorithm.policy_loss.kl_coef=0.1"), True),
    ],
)
def test_a_reference_is_there_only_if_leaving_it_costs(overrides: tuple[str, ...], pays: bool) -> None:
    for name in ("ppo", "grpo", "remax", "dapo", "safe_rlhf"):
        assert ("reference" in algorithms.get(name).roles_of(settings(*overrides))) is pays
    assert "reference" in algorithms.get("dpo").roles_of(settings(*overrides))


def test_the_adaptive_coefficient_is_state() -> None:
    adaptive = ("algorithm.reward_kl_control.name=adaptive", "+algorithm.reward_kl_control.options.target=0.1")
    one, other = (Algorithm(settings(*adaptive, "algorithm.critic_warmup_steps=0"), {}) for _ in range(2))
    assert one.on_step_end({"actor/kl": 0.3}) == {"actor/kl_coef": 0.001}
    assert one.kl.coef == pytest.approx(0.001 * 1.02)
    other.restore(one.state())
    assert other.kl.coef == one.kl.coef
    assert other.on_step_end({}) == {} and other.kl.coef == one.kl.coef


def test_no_coefficient_moves_while_only_the_critic_learns() -> None:
    adaptive = ("algorithm.reward_kl_control.name=adaptive", "+algorithm.reward_kl_control.options.target=0.1")
    algorithm = Algorithm(settings(*adaptive, "algorithm.critic_warmup_steps=2"), {})
    for number in range(3):
        algorithm.begin_step(StepContext(number))
        assert algorithm.on_step_end({"actor/kl": 0.0}) == {"actor/kl_coef": 0.001}
    assert algorithm.kl.coef == pytest.approx(0.001 * 0.98)


def test_the_multiplier_moves_by_the_cost_that_was_measured() -> None:
    own = settings("algorithm=safe_rlhf", "algorithm.critic_warmup_steps=1")
    made = algorithms.get("safe_rlhf").__new__(algorithms.get("safe_rlhf"))
    type(made).roles, roles = (), type(made).roles
    try:
        made.__init__(own, {})  # type: ignore[misc]
    finally:
        type(made).roles = roles
    assert made.on_step_end({"cost/mean": 0.5})["cost/multiplier"] == 1.0
    assert made.lagrange.multiplier == 1.0, "the actor does not learn yet"  # type: ignore[attr-defined]
    made.begin_step(StepContext(1))
    made.on_step_end({"cost/mean": 0.5})
    assert made.lagrange.multiplier == pytest.approx(math.exp(0.1 * (0.5 - 0.1)))  # type: ignore[attr-defined]


def test_minibatches_of_few_rows_are_fewer() -> None:
    algorithm = Algorithm(settings("algorithm.minibatches=4", "algorithm.epochs=2"), {})
    rows = BatchRef.from_local(Batch(n=np.arange(3)))
    parts = list(algorithm.minibatches(rows))
    assert [len(part) for part in parts] == [1] * 6
    assert sorted(int(part.get().dense("n")[0]) for part in parts[:3]) == [0, 1, 2]
    assert list(algorithm.minibatches(rows.slice(0, 0))) == []


def test_stacked_rows_share_no_group() -> None:
    rows = BatchRef.from_local(Batch(n=np.arange(3))).repeat(2)
    some, others = rows.select([2, 3, 4, 5]), rows.select([0, 1, 4])
    found = stacked([some, others])
    assert found.driver_columns["group_id"].tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert found.get().dense("n").tolist() == [1, 1, 2, 2, 0, 0, 2]
    assert stacked([some.slice(0, 0), others]).driver_columns["group_id"].tolist() == [0, 0, 1]


class Forgetful(Algorithm):
    """Calls roles that it does not name."""

    roles = ("actor", "reference", "reward")
    only_for_kl = ("reference",)


@pytest.mark.parametrize(
    ("role", "said"),
    [
        (
            "critic",
            r"'critic', which is not among its roles \(actor, reference, reward\): name it there, roles = ",
        ),
        ("reference", "its role 'reference', which is not started where no KL is penalized"),
    ],
)
def test_a_role_that_is_not_there_is_told_as_such(role: str, said: str) -> None:
    made = Forgetful(settings("algorithm.reward_kl_coef=0"), {"actor": None, "reward": None})
    with pytest.raises(HybridFlowError, match=said):
        getattr(made, role)
    assert not hasattr(made, role) and made.actor is None
    with pytest.raises(AttributeError, match="Forgetful has no 'anything'"):
        getattr(made, "anything")  # noqa: B009


def test_a_role_is_not_there_before_it_is_given() -> None:
    with pytest.raises(HybridFlowError, match=r"does its __init__ call super\(\).__init__"):
        Forgetful.__new__(Forgetful).actor  # noqa: B018


class InOne(Algorithm):
    """Written as one method."""

    def step(self, prompts: BatchRef) -> BatchRef:
        return prompts


@pytest.mark.parametrize(("cls", "written"), [(InOne, "step"), (Algorithm, "learn")])
def test_a_step_gives_rows(cls: type[Algorithm], written: str) -> None:
    made = cls(settings("algorithm.reward_kl_coef=0"), {})
    rows = BatchRef.from_local(Batch(n=np.arange(3)))
    assert made_rows(made, rows) is rows
    told = rf"{cls.__name__}\.{written} gave a NoneType; .* end it with `return rollout`"
    with pytest.raises(HybridFlowError, match=told):
        made_rows(made, None)


def test_a_flow_that_is_not_written_is_told() -> None:
    with pytest.raises(HybridFlowError, match="Algorithm has neither `learn` nor `step`: write one of them"):
        Algorithm(settings(), {}).step(BatchRef.from_local(Batch(n=np.arange(3))))
