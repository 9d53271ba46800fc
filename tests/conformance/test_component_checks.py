"""Parts as functions: ours keep their promises, and each planted mistake is told."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hybridflow import Batch, dispatch
from hybridflow.conformance import component_checks
from hybridflow.conformance.component_checks import try_role
from hybridflow.conformance.discovery import REGISTRIES, ours
from hybridflow.conformance.expectations import violations
from hybridflow.losses.advantages import AdvantageInputs, advantages, grpo, needing, whitened
from hybridflow.losses.policy_losses import PolicyInputs, policy_losses
from hybridflow.losses.ratios import clamped_exp
from hybridflow.losses.segments import row_sums, to_tokens
from hybridflow.losses.token_loss import TokenLoss, sums
from hybridflow.observe.sinks import MetricSink, SinkContext
from hybridflow.roles import Role
from hybridflow.scheduling.samplers import Sampler

OURS = {registry.kind: registry for registry in REGISTRIES if registry.kind in component_checks.CHECKS}
# What keeps another promise on purpose: it needs an option or a chat template, as these tasks do; it joins what stages
# give, not rows; it tells a server.
OTHERWISE = {("KL controller", "adaptive"), ("dispatch protocol", "3d_pp_only")}
OTHERWISE |= {("task", name) for name in ("addition_calls", "rows", "mixture", "openenv", "reasoning_gym", "verifiers")}
OTHERWISE |= {("metric sink", name) for name in ("wandb", "mlflow", "trackio")}
# Graders that need an option, a row's metadata, or answers of a kind of their own; each has tests of its own.
OF_THEIR_OWN = ("code_tests", "http", "json_schema", "judge", "multiple_choice", "reasoning_gym", "regex")
OTHERWISE |= {("grader", name) for name in (*OF_THEIR_OWN, "environment", "environment_turns")}
OTHERWISE |= {("environment", name) for name in ("graded", "openenv", "verifiers", "verifiers_tools")}


@pytest.mark.parametrize("kind", list(OURS))
def test_ours_keep_their_promises(kind: str) -> None:
    every = {name: OURS[kind].get(name) for name in OURS[kind] if (kind, name) not in OTHERWISE}
    own = {name: part for name, part in every.items() if ours(part)}  # and not what other tests have registered
    results = dict(component_checks.results({"task": {}, kind: own}))
    assert len(results) == len(own) > 0
    assert {what: lines for what, lines in results.items() if lines} == {}


def told(kind: str, part: Callable[..., Any]) -> str:
    """The one line about a part."""
    (line,) = violations(partial(component_checks.CHECKS[kind], part))
    assert "\n" not in line
    return line


DICE = np.random.default_rng(0)


class Dicing:
    """A coefficient by chance."""

    def __init__(self, coef: float) -> None:
        self.coef = coef

    def update(self, kl: float) -> None:
        self.coef *= 1 + DICE.random()


def loss_of(change: Callable[[PolicyInputs, Tensor], Any]) -> Callable[[PolicyInputs], Any]:
    """A policy loss with one change to -A log π."""

    def loss(inputs: PolicyInputs) -> Any:
        found = change(inputs, -inputs.advantages * inputs.log_probs)
        return TokenLoss(found, sums({"actor/loss": found})) if isinstance(found, Tensor) else found

    return loss


LOSSES: dict[str, tuple[Callable[[PolicyInputs, Tensor], Any], str]] = {
    "averaged": (lambda _, loss: loss.mean(), r"wrong shape: the loss is \(\); \(\d+,\) was expected, one for each"),
    "detached": (lambda _, loss: loss.detach(), "gradient does not flow: the loss has none to log_probs"),
    "of the old": (lambda i, _: i.old_log_probs.clone().requires_grad_(), "gradient does not flow: the loss has none"),
    "times zero": (lambda _, loss: 0 * loss, "gradient does not flow: it is 0 everywhere"),
    "not finite": (lambda _, loss: loss / 0, "on random rows: not finite: the loss has -?inf at token 0"),
    "bare exp": (
        lambda i, _: i.log_ratio.exp() * i.advantages,
        "on log-probs that differ by 100: not finite: the loss has -?inf",
    ),
    "roots": (lambda i, loss: loss + i.log_ratio.abs().sqrt(), "not finite: the gradient to log_probs .*clamped_exp"),
    "no metrics": (lambda _, loss: (loss, {}), "wrong type: it gave a tuple, not a TokenLoss"),
    "metrics a token": (lambda _, loss: TokenLoss(loss, {"actor/x": loss}), "metric 'actor/x' must be a finite scalar"),
    "whole numbers": (lambda i, loss: loss.long(), "wrong dtype: the loss is torch.int64"),
    "a bug": (lambda i, loss: loss[len(loss)], r"IndexError: .* \(.*test_component_checks.py:\d+\)"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_mistake_in_a_policy_loss_is_told(name: str) -> None:
    change, line = LOSSES[name]
    assert re.search(line, told("policy loss", loss_of(change)))


def by_row(inputs: AdvantageInputs) -> Any:
    rewards = row_sums(inputs.token_rewards, inputs.lengths)
    return rewards, rewards


def alone(inputs: AdvantageInputs) -> Any:
    return inputs.token_rewards


@needing("group_id")
def by_deviation(inputs: AdvantageInputs) -> Any:
    rewards = row_sums(inputs.token_rewards, inputs.lengths)
    found = to_tokens((rewards - rewards.mean()) / rewards.std(correction=0), inputs.lengths)
    return found, found


def undeclared(inputs: AdvantageInputs) -> Any:
    return grpo(inputs)


def in_place(inputs: AdvantageInputs) -> Any:
    inputs.token_rewards.mul_(2)
    return inputs.token_rewards, inputs.token_rewards


def only_with_rows(inputs: AdvantageInputs) -> Any:
    found = whitened(inputs.token_rewards, inputs.all_reduce) if len(inputs.lengths) else inputs.token_rewards
    return found, found


def without_default(inputs: AdvantageInputs, *, scale: float) -> Any:
    return scale * inputs.token_rewards, inputs.token_rewards


@needing("values", "style")
def of_another_column(inputs: AdvantageInputs) -> Any:
    found = inputs.values + to_tokens(inputs.columns["style"], inputs.lengths)
    return found, inputs.columns["style"]


@pytest.mark.parametrize(
    ("estimator", "line"),
    [
        (by_row, r"on random rows: wrong shape: advantages is \(12,\)"),
        (alone, "wrong type: it gave a Tensor; \\(advantages, returns\\) was expected"),
        (by_deviation, "on (equal rewards|one row): not finite: advantages has nan"),
        (undeclared, 'it reads group_id and does not say so: put @needing\\("group_id"\\) above it'),
        (in_place, "it changes its inputs in place: token_rewards"),
        (only_with_rows, "it sums over ranks 0 times for some rows and 2 times for others"),
        (without_default, "its option scale has no default"),
        (of_another_column, r"returns is \(12,\)"),
    ],
)
def test_a_mistake_in_an_advantage_is_told(estimator: Callable[..., Any], line: str) -> None:
    assert re.search(line, told("advantage estimator", estimator)), told("advantage estimator", estimator)


@pytest.mark.parametrize(
    ("kind", "part", "line"),
    [
        ("reward shaping", lambda i: i.rewards.sum(), r"wrong shape: the result is \(\); \(12,\)"),
        ("reward shaping", lambda i: i.rewards / (i.lengths - i.lengths), "not finite: .* at row 0"),
        ("rollout filter", lambda i: i.rewards > 0.5, "bool was given; for a mask use np.flatnonzero"),
        ("rollout filter", lambda i: np.arange(len(i.rewards) + 1), "no numbers of rows: no row 12; there are 12"),
        ("rollout filter", lambda i: i.rewards, "row numbers are wanted, float32 was given"),
        ("rollout filter", lambda i: DICE.permutation(len(i.rewards)), "gives something else when it is called again"),
        ("reward shaping", lambda i: i.rewards + time.perf_counter() % 1, "something else when it is called again"),
        ("advantage estimator", lambda i: (torch.rand_like(i.token_rewards),) * 2, "something else when it is called"),
        (
            "policy loss",
            lambda i: TokenLoss(i.log_probs * torch.rand(()), {}),
            "something else when it is called again",
        ),
        ("rollout correction", lambda i: torch.rand_like(i.old_log_probs), "something else when it is called again"),
        ("KL estimator", lambda now, ref: (now - ref) * torch.rand(()), "something else when it is called again"),
        ("loss aggregation", lambda n, *_, limit: torch.rand(int(n.sum())), "something else when it is called again"),
        ("loss of pairs", lambda c, r: TokenLoss((r - c).mean(), {}), r"wrong shape: the loss is \(\)"),
        ("loss of pairs", lambda c, r: TokenLoss((r - c).detach(), {}), "the loss has none to the chosen scores"),
        ("loss of pairs", lambda c, r: TokenLoss(r - c, {"m": (c - r).mean()}), "metric 'm' is the same for the rows"),
        ("loss of pairs", lambda c, r: TokenLoss((r - c) * torch.rand(()), {}), "something else when it is called"),
        ("KL controller", lambda coef: Dicing(coef), "after a KL of 0.0: it gives something else"),
        ("rollout correction", lambda i: (i.old_log_probs - i.rollout_log_probs).exp(), "differ by 100.*not finite"),
        ("rollout correction", lambda i: (w := i.token_ratios()) / w.mean(), "depend on which others are given"),
        ("KL estimator", lambda now, ref: (now - ref).detach(), "gradient does not flow"),
        ("KL estimator", lambda now, ref: (now - ref).sum(), "wrong shape"),
        ("loss aggregation", lambda n, *_, limit: torch.ones(len(n)), "wrong shape"),
        (
            "loss aggregation",
            lambda n, tokens, rows, limit: torch.ones(int(n.sum())) / max(1, int(n.sum())),
            "depend on how the rows are cut",
        ),
    ],
)
def test_a_mistake_in_another_part_is_told(kind: str, part: Callable[..., Any], line: str) -> None:
    assert re.search(line, told(kind, part)), told(kind, part)


@pytest.mark.parametrize(
    "keep",
    [
        lambda i: np.arange(len(i.rewards))[::-1],
        lambda i: np.argsort(i.rewards)[: len(i.rewards) // 2],
        lambda i: [*range(len(i.rewards))],
        lambda i: np.repeat(np.arange(len(i.rewards)), 2),
    ],
    ids=["backwards", "the worst first", "a list", "twice"],
)
def test_a_filter_may_give_what_a_run_takes(keep: Callable[..., Any]) -> None:
    assert violations(partial(component_checks.CHECKS["rollout filter"], keep)) == []


@pytest.mark.parametrize("given", ["metrics", "means", "maxima"])
def test_a_metric_that_is_no_sum_is_told_unless_it_is_said(given: str) -> None:
    def loss(inputs: PolicyInputs) -> TokenLoss:
        found = -inputs.advantages * inputs.log_probs
        metrics = {"actor/mean_ratio": clamped_exp(inputs.log_ratio).mean().detach()}
        return TokenLoss(found, **{"metrics": {}, given: metrics})

    lines = violations(partial(component_checks.CHECKS["policy loss"], loss))
    if given != "metrics":
        assert lines == []
    else:
        assert re.search("metric 'actor/mean_ratio' is the same for the rows and for all of them twice", lines[0])


def test_a_coefficient_that_does_not_come_back_is_told() -> None:
    class Forgets:
        def __init__(self, coef: float) -> None:
            self.coef = coef

        def update(self, kl: float) -> None:
            self.coef *= 1.1

        def state(self) -> dict[str, float]:
            return {}

        def restore(self, state: dict[str, float]) -> None:
            pass

    assert "restore(state()) gives a coef of 0.1 in place of" in told("KL controller", Forgets)


def test_results_carry_the_kind_and_the_name() -> None:
    found = {"policy loss": {"mine": policy_losses.get("pg")}, "advantage estimator": {"own": advantages.get("grpo")}}
    assert dict(component_checks.results({"task": {}, **found})) == {
        "policy loss 'mine'": [],
        "advantage estimator 'own'": [],
    }


def test_inputs_of_a_subclass_can_be_replaced() -> None:
    """An estimator may call others on changed inputs."""

    @needing("group_id")
    def twice(inputs: AdvantageInputs) -> Any:
        return grpo(replace(inputs, token_rewards=2 * inputs.token_rewards))

    assert violations(partial(component_checks.CHECKS["advantage estimator"], twice)) == []


class Rewards(MetricSink):
    """Rewards in a file of the run folder and one beside where it was started, as a user might write it."""

    def __init__(self, context: SinkContext, separator: str = ",") -> None:
        super().__init__(context)
        self._files = [file.open("a") for file in (context.folder.path / "rewards.csv", Path("beside.csv"))]
        self._separator = separator

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        for file in self._files:
            file.write(f"{step}{self._separator}{metrics.get('reward/mean')}\n")

    def log_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Leave it out."""

    def close(self) -> None:
        for file in self._files:
            file.close()


def sampler(rank: Callable[..., Any]) -> type[Sampler]:
    return type("Mine", (Sampler,), {"rank": lambda self, rollout: rank(rollout)})


@pytest.mark.parametrize(
    ("rank", "said"),
    [
        (lambda rollout: rollout.finished, "`rank` gave a int; a tuple of numbers was expected"),
        (lambda rollout: (None,) if rollout.version else (1,), "its ranks cannot be compared: TypeError"),
        (lambda rollout: (DICE.random(),), "it gives something else when it is called again"),
        (lambda rollout: (rollout.running.update({0: 0}) or 0,), "`rank` changes the prompt that it is given"),
        (lambda rollout: (rollout.length,), "AttributeError: 'Rollout' object has no attribute 'length'"),
    ],
)
def test_a_sampler_orders_prompts_the_same_each_time(rank: Callable[..., Any], said: str) -> None:
    assert said in told("sampler", sampler(rank))


def test_a_sink_is_tried_in_a_folder_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    taken: list[str] = []

    class Noting(Rewards):
        def log_validation(self, step: int, metrics: Mapping[str, float]) -> None:
            taken.append(f"validation {step} {min(metrics)}")

        def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
            super().log_step(step, metrics)
            taken.append(f"step {step}")

        def close(self) -> None:
            super().close()
            taken.append(f"closed {self.context.folder.path.is_dir()}")

    assert violations(partial(component_checks.CHECKS["metric sink"], Noting)) == []
    assert taken == ["validation 0 validation/accuracy", "step 0", "step 1", "closed True"]
    assert not [*tmp_path.iterdir()]


def failing(where: str, error: BaseException) -> Any:
    """A sink that fails in one of its methods."""

    def fail(*given: Any) -> None:
        raise error

    return type("Failing", (Rewards,), {where: fail})


@pytest.mark.parametrize(
    ("sink", "told_of_it"),
    [
        (failing("__init__", OSError("no server")), "it fails when it is opened: OSError: no server"),
        (failing("log_validation", KeyError("loss")), "it fails at a validation: KeyError: 'loss'"),
        (failing("log_step", ValueError("odd")), "it fails at step 0: ValueError: odd"),
        (failing("close", SystemExit(0)), "it fails when it is closed: SystemExit: 0"),
        (type("Packed", (Rewards,), {"package": "no_such_package"}), "it needs the package no_such_package, which is"),
    ],
)
def test_a_sink_that_fails_is_told_with_when(sink: Any, told_of_it: str) -> None:
    assert told("metric sink", sink).startswith(told_of_it)


def test_a_method_of_a_role_has_a_protocol_that_exists() -> None:
    class Judge(Role):
        @dispatch.using("dp_prto", gives=["marks"])
        def mark(self, rows: Batch) -> Batch: ...

    [line] = violations(lambda: try_role(Judge))
    assert line.startswith("Judge.mark: no dispatch protocol is named 'dp_prto'")
