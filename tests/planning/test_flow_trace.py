"""Flows as they are traced: ours, a user's own, and those that cannot be traced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from hybridflow.algorithms import Algorithm, StepContext, algorithms
from hybridflow.batch import Batch, BatchRef
from hybridflow.config import compose
from hybridflow.config.schema import ComponentConfig, Config
from hybridflow.controller import put
from hybridflow.dispatch import RowsT, concat, using
from hybridflow.planning import flow_trace
from hybridflow.planning.flow_trace import TracedFlow, trace_flow
from hybridflow.planning.plan_remarks import of_scores, of_updates
from hybridflow.planning.run_spec import Work
from hybridflow.planning.traced_roles import FlowError
from hybridflow.roles import Role, roles
from hybridflow.workers import workers
from hybridflow.workers.actor import ActorWorker

MODELS = ("actor", "critic", "reference", "cost_critic", "reward_model")


@lru_cache
def base() -> Config:
    return compose.compose("train", ["experiment=addition"]).to_config()


def load(name: str, **changes: Any) -> Config:
    """Settings of an algorithm: six prompts a step, of two samples in two minibatches, if nothing else is said."""
    small = {"prompts_per_step": 6, "samples_per_prompt": 2, "minibatches": 2, **changes}
    return replace(base(), algorithm=replace(base().algorithm, name=name, **small))


def trace(config: Config, flow: type[Algorithm] | None = None, **changes: Any) -> TracedFlow:
    algorithm = flow or algorithms.get(config.algorithm.name)
    called = {role: roles.get(role) for role in algorithm.roles_of(config.algorithm)}
    return trace_flow(config, algorithm, called, MODELS, **changes)


def written(flow: TracedFlow) -> list[str]:
    """Each call as `role.method rows ← the calls that it waits for`."""
    return [f"{c.role}.{c.method} {c.rows} ← {' '.join(map(str, c.after)) or '-'}" for c in flow.calls]


def test_ppo_is_what_its_file_says() -> None:
    flow = trace(load("ppo"))
    assert written(flow) == [
        "actor.generate_sequences 12 ← -",
        "reference.compute_ref_log_prob 12 ← 0",
        "reward.compute_reward 12 ← 0",
        "actor.compute_log_prob 12 ← 0",
        "critic.compute_values 12 ← 0",
        "actor.compute_advantage 12 ← 0 1 2 3 4",
        "critic.update_critic 6 ← 0 1 2 3 4 5",
        "actor.update_actor 6 ← 0 1 2 3 4 5",
        "critic.update_critic 6 ← 0 1 2 3 4 5",
        "actor.update_actor 6 ← 0 1 2 3 4 5",
    ]
    assert [call.work.value for call in flow.calls[:7]] == [
        "generate", "score", "grade", "score", "score", "rows", "train"
    ]  # fmt: skip
    assert [call.samples for call in flow.calls] == [True] * 3 + [False] * 7
    assert [call.balanced for call in flow.calls[1:4]] == [True, True, False]
    assert not flow.notes


def test_without_a_penalty_no_reference_is_asked() -> None:
    flow = trace(load("grpo", reward_kl_coef=0.0))
    assert "reference" not in {call.role for call in flow.calls}


def test_remax_generates_twice_and_its_baseline_waits_for_the_second() -> None:
    flow = written(trace(load("remax", samples_per_prompt=1)))
    assert flow[:2] == ["actor.generate_sequences 6 ← -"] * 2
    assert "reward.compute_baseline 6 ← 1" in flow


def test_rows_of_a_first_update_are_not_scored_and_those_of_later_ones_are() -> None:
    kl_in_loss = {"reward_kl_coef": 0.0}
    assert [call for call in written(trace(load("grpo", **kl_in_loss))) if "reward" not in call] == [
        "actor.generate_sequences 12 ← -",
        "actor.compute_advantage 12 ← 0 1",
        "actor.compute_log_prob 6 ← 0",
        "actor.update_actor 6 ← 0 1 2",
        "actor.update_actor 6 ← 0 1 2 3",
    ]
    alone = trace(load("grpo", minibatches=1, **kl_in_loss))
    assert not [call for call in alone.calls if call.method == "compute_log_prob"]
    (remark,) = of_scores(alone.calls)
    assert remark.key == "algorithm.epochs" and "old log-probs of 12 rows" in remark.text and "; 0 of" in remark.text
    (remark,) = of_scores(trace(load("grpo", **kl_in_loss)).calls)
    assert "old log-probs of 6 rows" in remark.text and "; 6 of" in remark.text
    for scored in ({"reward_kl_coef": 0.1}, {"epochs": 2}):
        flow = trace(load("grpo", **{**kl_in_loss, **scored})).calls
        assert [call.rows for call in flow if call.method == "compute_log_prob"] == [12]
        assert not [*of_scores(flow)]


@pytest.mark.parametrize(
    ("method", "scored"), [("compute_log_prob", 12), ("update_actor", 12), ("update_policy", 12), ("save_model", 0)]
)
def test_where_a_users_worker_scores_or_learns_its_own_way_all_rows_are_scored(
    method: str, scored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(workers._components, "own", type("Own", (ActorWorker,), {method: lambda self, *_: None}))
    config = load("grpo", minibatches=1, reward_kl_coef=0.0)
    for worker, rows in (("actor", 0), ("own", scored)):
        flow = trace(replace(config, actor=replace(config.actor, worker=worker)))
        assert sum(call.rows for call in flow.calls if call.method == "compute_log_prob") == rows


def test_epochs_and_minibatches_are_updates() -> None:
    flow = trace(load("grpo", epochs=3))
    assert [call.rows for call in flow.calls if call.work is Work.train] == [6] * 6


@pytest.mark.parametrize(("share", "draws"), [(1.0, 1), (0.5, 2), (0.25, 4)])
def test_dynamic_sampling_draws_until_it_has_enough(share: float, draws: int) -> None:
    filters = ComponentConfig("unequal_groups")
    config = load("dapo", prompts_per_step=8, samples_per_prompt=4, rollout_filter=filters)
    flow = trace(config, kept_share=share)
    assert sum(call.work is Work.generate for call in flow.calls) == draws
    assert [call.rows for call in flow.calls if call.method == "compute_advantage"] == [32]
    assert flow.calls[-1].rows == 32 // config.algorithm.minibatches
    assert f"{share:.0%} of the groups are expected" in flow.notes[0]
    second = [call for call in flow.calls if call.work is Work.generate][1:]
    assert all(call.after for call in second), "a draw waits for the rewards of those before"


def test_pairs_are_two_sequences_and_nothing_is_generated() -> None:
    flow = trace(load("dpo", minibatches=1))
    assert [(call.method, call.work, call.sequences) for call in flow.calls] == [
        ("compute_ref_pair", Work.score, 2),
        ("update_preferred", Work.train, 2),
    ]


# Algorithms of a user


class Judge(Role[RowsT]):
    """Role of a user's."""

    @using("dp_tokens", needs=("response_ids",), gives=("verdict",))
    def judge(self, rows: RowsT, *, harsh: bool) -> RowsT:
        raise NotImplementedError

    @using("dp_tokens", needs=("verdict",))
    def guess(self, rows: RowsT) -> RowsT:
        raise NotImplementedError


class Whole(Algorithm):
    """Flow as one method, which streams and keeps every other row."""

    roles = ("actor", "judge")

    def step(self, prompts: BatchRef) -> BatchRef:
        parts = [rows | self.actor.compute_log_prob(rows) for rows in self.stream(prompts)]
        rollout = concat(parts)
        rollout |= self.judge.judge(rollout, harsh=True)
        half = rollout.select(range(0, len(rollout), 2))
        self.actor.update_policy(half, "mine", strength=2.0)
        self.actor.sync_weights()
        return half


def trace_own(flow: type[Algorithm]) -> TracedFlow:
    config = load("grpo")
    called: dict[str, type[Role[Any]]] = {"actor": roles.get("actor"), "judge": Judge}
    return trace_flow(config, flow, called, ("actor",))


def test_a_flow_of_ones_own_is_traced() -> None:
    flow = trace_own(Whole)
    assert written(flow) == [
        "actor.stream_sequences 12 ← -",
        "actor.compute_log_prob 12 ← 0",
        "judge.judge 12 ← 0",
        "actor.update_policy 6 ← 0 1 2",
    ]
    assert [call.samples for call in flow.calls] == [True, True, True, False]
    assert flow.calls[2].work is Work.grade
    assert flow.notes == (
        "actor.stream_sequences: its rows are expected to come all at once",
        "actor.sync_weights is called without rows; its time is not counted",
    )


class Puts(Whole):
    """Flow that gives its rows a column of its own, by the store of a cluster that is not there."""

    def step(self, prompts: BatchRef) -> BatchRef:
        rollout = self.generate(prompts)
        longer = rollout.lengths("response_ids") > 3
        rollout |= put(Batch(weight=longer.astype(np.float64)))
        self.actor.update_policy(rollout, "mine")
        return rollout


class Twice(Algorithm):
    """Flow that learns from its rows twice, and asks nobody for old log-probs."""

    roles = ("actor", "judge")
    anew = False

    def step(self, prompts: BatchRef) -> BatchRef:
        rollout = self.generate(prompts)
        for _ in range(2):
            rollout = self.generate(prompts) if self.anew else rollout
            self.actor.update_actor(rollout)
        return rollout


def test_a_second_update_on_rows_that_nobody_scored_is_told_before_a_run() -> None:
    (remark,) = of_updates(trace_own(Twice).calls)
    assert "update_actor more than once" in remark.text and "compute_log_prob" in remark.text
    anew = type("Anew", (Twice,), {"anew": True})
    assert not [*of_updates(trace_own(anew).calls)], "rows that are sampled between are new"
    assert not [*of_updates(trace(load("grpo", reward_kl_coef=0.0)).calls)]


def test_rows_that_a_flow_makes_itself_need_no_cluster() -> None:
    assert written(trace_own(Puts)) == ["actor.generate_sequences 12 ← -", "actor.update_policy 12 ← 0"]


class Prints(Puts):
    def step(self, prompts: BatchRef) -> BatchRef:
        print("red \x1b[31m")
        return super().step(prompts)


def test_what_a_flow_prints_is_none_of_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(trace_own(Prints).calls) == 2
    assert capsys.readouterr() == ("", "red \\x1b[31m\n")


class Reads(Whole):
    def step(self, prompts: BatchRef) -> BatchRef:
        self.generate(prompts).select_columns(["response_ids"]).get()
        return prompts


class Endless(Whole):
    def step(self, prompts: BatchRef) -> BatchRef:
        while True:
            self.generate(self.next_prompts())


class Silent(Whole):
    def step(self, prompts: BatchRef) -> BatchRef:
        return self.judge.guess(prompts)


class Broken(Whole):
    def step(self, prompts: BatchRef) -> BatchRef:
        raise KeyError("a\nb")


class Exits(Whole):
    def step(self, prompts: BatchRef) -> BatchRef:
        os._exit(0)


class Loops(Whole):
    def begin_step(self, context: StepContext) -> None:
        while True:
            pass


class Unspoken(BaseException):
    def __str__(self) -> str:
        raise ValueError


class Mute(Whole):
    def step(self, prompts: BatchRef) -> BatchRef:
        raise Unspoken


def refusals() -> Iterator[tuple[type[Algorithm], str]]:
    begin = "cannot be traced without a run: "
    yield Reads, f"the flow of Reads {begin}it reads the rows that actor.generate_sequences gives"
    yield Endless, f"the flow of Endless {begin}it has made 2000 calls, and has no end"
    yield Silent, f"the flow of Silent {begin}judge.guess does not declare the columns that it gives"
    yield Broken, f"the flow of Broken {begin}KeyError: "
    yield Mute, f"the flow of Mute {begin}Unspoken, which cannot be put into words"
    yield Exits, f"the flow of Exits {begin}SystemExit: os._exit(0) would have ended the process"
    yield Loops, f"the flow of Loops {begin}TimeoutError: it took longer than 0.2 s"


@pytest.mark.parametrize(("flow", "said"), [*refusals()])
def test_a_flow_that_needs_more_than_numbers_of_rows_is_refused_in_a_line(
    flow: type[Algorithm], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if flow is Loops:
        monkeypatch.setattr(flow_trace, "TRACE_S", 0.2)
    with pytest.raises(FlowError) as caught:
        trace_own(flow)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
