"""A step of PPO and of GRPO, from given rows to the gradients, on every kind of layout of one rank and two.

What runs is the algorithm's own `step`, the protocols that its roles declare, and the roles' workers; only Ray and
sampling are left out. Of the two updates of a step the second has ratios that are not 1, some of them clipped.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hybridflow import preflight
from hybridflow.algorithms import algorithms
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.batch.loss_mask import learned_rows
from hybridflow.batch.weight_versions import one_run
from hybridflow.config.schema import Config
from hybridflow.dispatch import Call, methods, protocols
from hybridflow.models.head import VALUE_HEAD
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout
from hybridflow.roles import roles
from tests.conftest import GetModel, GetRanks
from tests.engines import reference
from tests.engines.rank_functions import merged
from tests.matrix import thinned
from tests.spmd import Ranks
from tests.workers import step_rank_functions as rank_functions

pytestmark = pytest.mark.ranks

WHOLE = 10**6  # a budget of tokens that leaves all rows of a rank in one micro-batch
ORDER = (7, 2, 10, 5, 0, 11, 8, 1, 3, 9, 6, 4)  # groups are no longer neighbors
AS_THEY_ARE = tuple(range(12))
WHOLLY_MASKED = (3, 8)
SHAPE = {"layers": 2, "hidden": 64, "heads": 2, "kv_heads": 2, "vocab": 70}
Case = tuple[Layout, int, tuple[int, ...]]
ALONE: Case = (Layout(), WHOLE, AS_THEY_ARE)
CASES: dict[str, Case] = {
    "budget": (Layout(), 25, AS_THEY_ARE),
    "order": (Layout(), WHOLE, ORDER),
    "dp2": (Layout(data=2), 25, AS_THEY_ARE),
    "dp2-order": (Layout(data=2), WHOLE, ORDER),
    "tp2": (Layout(2), WHOLE, AS_THEY_ARE),
    "pp2": (Layout(1, 2), 25, AS_THEY_ARE),
}
LEARNED = {"ppo": ("actor", "critic"), "grpo": ("actor",)}
EACH = thinned(product(LEARNED, CASES), [*product(["ppo"], CASES), ("grpo", "dp2-order"), ("grpo", "pp2")])
MASKED = thinned(product(LEARNED, CASES), [("ppo", "dp2-order"), ("ppo", "pp2"), ("grpo", "dp2"), ("grpo", "tp2")])
FAILED = thinned(
    product(LEARNED, ["some", "all-of-a-rank"], ["alone", "dp2"]),
    [("ppo", "some", "alone"), ("ppo", "all-of-a-rank", "dp2"), ("grpo", "some", "dp2")],
)
# What a KL weighs shows, a critic learns at once, and of its second values some are clipped.
OWN = {
    "ppo": ("algorithm.reward_kl_coef=0.1", "algorithm.critic_warmup_steps=0", "algorithm.value_loss.clip=0.05"),
    "grpo": ("algorithm.policy_loss.kl_coef=0.1",),
}


class Group:
    """A role on ranks, as an algorithm has it: distribute, call, collect."""

    def __init__(self, role: str, layout: Layout, ranks: Ranks) -> None:
        self.role, self.layout, self.ranks = role, layout, ranks
        self.metrics: list[Metrics] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._call, name)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        method = methods(roles.get(self.role))[name]
        protocol = protocols.get(method.protocol)()
        parts = protocol.distribute(self.layout, Call(args, kwargs))
        found = self.ranks.run(rank_functions.call, self.role, name, [part.map(here) for part in parts])
        self.metrics.append(protocol.collect(self.layout, [measured for _, measured in found]))
        if not method.returns_rows:
            return None
        given = zip((part.refs[0] for part in parts), (rows for rows, _ in found), strict=True)
        return protocol.collect(self.layout, [BatchRef.from_local(rows).with_origin(of.origin) for of, rows in given])


def here(value: Any) -> Any:
    """Rows, with their marks, as a rank gets them."""
    return value.get() if isinstance(value, BatchRef) else value


class Scores:
    """The role that grades: each row has its grade already."""

    def compute_reward(self, rollout: BatchRef) -> BatchRef:
        return BatchRef.from_local(Batch(rewards=rollout.select_columns(["score"]).get().dense("score")))


def rows(failed: tuple[int, ...] = (), masked: bool = False) -> BatchRef:
    """Four prompts with three responses each: one of no token, some of one, a group of equal rewards.

    Args:
        failed: rows whose grade has failed.
        masked: with a `loss_mask`: of two rows no token is learned from, of the others about two in three.
    """
    rng = np.random.default_rng(4)
    prompts = Batch(prompt_ids=Ragged.of([rng.integers(2, 44, n) for n in (3, 1, 6, 4)]), stream_id=np.arange(4))
    responses = Ragged.of([rng.integers(2, 44, n) for n in (5, 1, 0, 7, 2, 9, 3, 1, 8, 4, 6, 2)])
    score = rng.normal(size=12).astype(np.float32)
    score[3:6] = 1.0
    score[list(failed)] = np.nan
    sampled = Batch(
        response_ids=responses,
        rollout_log_probs=responses.like(rng.normal(-3, 1, len(responses.values)).astype(np.float32)),
        weight_version=one_run(0, responses.lengths),
        score=score,
    )
    if masked:
        learned = (rng.random(len(responses.values)) < 2 / 3).astype(np.int64)
        learned[np.repeat(np.isin(np.arange(12), WHOLLY_MASKED), responses.lengths)] = 0
        sampled |= Batch(loss_mask=responses.like(learned))
    return BatchRef.from_local(prompts).repeat(3) | BatchRef.from_local(sampled)


def config_of(name: str, model: Path, other: Path, budget: int) -> Config:
    """The settings that come with the algorithm; one minibatch, twice."""
    sizes = ("algorithm.minibatches=1", "algorithm.epochs=2", "algorithm.samples_per_prompt=3")
    paths = (f"actor.model.path={model}", f"critic.model.path={model}", f"reference.model.path={other}")
    made_up = "rollout.max_log_prob_diff.float32=0"  # log-probs of the sampling are not those of the actor
    own = (*sizes, *paths, *OWN[name], "actor.parallel.tensor=1", "reward.max_failed_share=0.9", made_up)
    config = preflight.load("train", ["experiment=addition", f"algorithm={name}", *own])
    for role in (config.actor, config.critic, config.reference):
        role.max_tokens_per_rank = budget  # less than the longest row of a run may have; none is so long here
    config.actor.optimizer = config.critic.optimizer = replace(reference.SETTINGS, lr=2e-3)
    return config


Step = tuple[dict[str, list[dict[str, Tensor]]], dict[str, Metrics]]


@pytest.fixture(scope="module")
def models(tiny: GetModel) -> tuple[Path, Path]:
    """The policy, which the critic starts from too, and the reference."""
    return tiny(**SHAPE, seed=0), tiny(**SHAPE, seed=1)


@pytest.fixture(scope="module")
def step_of(ranks: GetRanks, models: tuple[Path, Path]) -> Callable[[str, Case], Step]:
    """`step_of(algorithm, case)`: by the roles that learn, the gradients of both updates and what the last measured.

    Grades of the rows `failed` have failed; the case's order is over those, and rows that it leaves out are not there.
    """

    @cache
    def get(name: str, case: Case, failed: tuple[int, ...] = (), masked: bool = False) -> Step:
        layout, budget, order = case
        config, on = config_of(name, *models, budget), ranks(layout.size)
        made = {role: Group(role, layout, on) for role in (*LEARNED[name], "reference")}
        on.run(rank_functions.build, config, layout, tuple(made))
        algorithm = algorithms.get(name)(config.algorithm, {**made, "reward": Scores()})
        algorithm.generate = lambda prompts, **_: prompts
        algorithm.step(rows(failed, masked).select(order))
        found = {}
        for role in LEARNED[name]:
            found[role] = [merged(list(stages)) for stages in zip(*on.run(rank_functions.steps, role), strict=True)]
        return found, {role: made[role].metrics[-1] for role in found}

    return get


@pytest.mark.parametrize(("name", "case"), EACH)
def test_the_gradient_is_that_of_one_rank(name: str, case: str, step_of: Callable[[str, Case], Step]) -> None:
    """In the 2-norm, tensor by tensor; before the second update there was a step of AdamW, which spreads roundings."""
    found, expected = step_of(name, CASES[case])[0], step_of(name, ALONE)[0]
    for role, updates in expected.items():
        for update, bound, got in zip(updates, (1e-5, 1e-4), found[role], strict=True):
            assert set(got) == set(update)
            off = {weight: apart(got[weight], gradient) for weight, gradient in update.items()}
            worst = max(off, key=off.__getitem__)
            assert off[worst] < bound, (role, worst, off[worst])


@pytest.mark.parametrize(("name", "kind", "case"), FAILED)
def test_rows_whose_grades_failed_have_no_part_in_the_gradient(
    name: str, kind: str, case: str, step_of: Callable[[str, Case], Step]
) -> None:
    """It is that of a step without them: in groups, in whitening, in every mean. A rank may have no other rows."""
    failed = {"some": (0, 7, 8), "all-of-a-rank": tuple(range(6, 12))}[kind]
    others = tuple(row for row in AS_THEY_ARE if row not in failed)
    expected, _ = step_of(name, (Layout(), WHOLE, others))
    found, measured = step_of(name, {**CASES, "alone": ALONE}[case], failed)  # type: ignore[call-arg]
    for role, updates in expected.items():
        for update, bound, got in zip(updates, (1e-5, 1e-4), found[role], strict=True):
            assert max(apart(got[weight], gradient) for weight, gradient in update.items()) < bound
        assert measured[role][f"{role}/trained_rows"] == len(others) and measured[role][f"{role}/updates"] == 1


@pytest.mark.parametrize("name", LEARNED)
def test_without_any_row_that_is_graded_there_is_no_update(name: str, step_of: Callable[[str, Case], Step]) -> None:
    gradients, measured = step_of(name, CASES["dp2"], AS_THEY_ARE)  # type: ignore[call-arg]
    for role, updates in gradients.items():
        assert updates == [], "the weights would move by what earlier steps have left"
        assert measured[role][f"{role}/skipped_steps"] == 1 and f"{role}/grad_norm" not in measured[role]


@pytest.mark.parametrize(("name", "case"), MASKED)
def test_the_gradient_of_some_tokens_is_that_of_one_rank(
    name: str, case: str, step_of: Callable[[str, Case], Step]
) -> None:
    """Under a `loss_mask`, whose masked rows are nowhere."""
    (found, measured), (expected, _) = step_of(name, CASES[case], (), True), step_of(name, ALONE, (), True)  # type: ignore[call-arg]
    learned = learned_rows(rows(masked=True).get())
    for role, updates in expected.items():
        for update, bound, got in zip(updates, (1e-5, 1e-4), found[role], strict=True):
            assert max(apart(got[weight], gradient) for weight, gradient in update.items()) < bound
        assert measured[role][f"{role}/trained_rows"] == learned.sum() < 12
        assert len(updates) == 2


def apart(found: Tensor, expected: Tensor) -> float:
    """Relative to what is expected; what should be 0 must be."""
    difference, size = float((found - expected).norm()), float(expected.norm())
    return difference / size if size else difference


def test_how_uneven_the_tokens_of_replicas_are_is_measured(step_of: Callable[[str, Case], Step]) -> None:
    """The larger part of two over the mean of both: twelve rows of other lengths never share out evenly."""
    _, measured = step_of("ppo", CASES["dp2"])
    assert all(1 < measured[role][f"{role}/token_imbalance"] < 2 for role in LEARNED["ppo"]), "both have some"
    _, alone = step_of("ppo", ALONE)
    assert all(f"{role}/token_imbalance" not in alone[role] for role in LEARNED["ppo"])


@pytest.mark.parametrize("name", LEARNED)
def test_the_second_update_clips(name: str, step_of: Callable[[str, Case], Step]) -> None:
    gradients, measured = step_of(name, ALONE)
    assert 0 < measured["actor"]["actor/clip_fraction"] < 1
    if "critic" in measured:
        assert 0 < measured["critic"]["critic/value_clip_fraction"] < 1
    for role, (first, second) in gradients.items():
        flat = {weight for weight, gradient in first.items() if not gradient.any()}
        below = set(first) - {VALUE_HEAD} if role == "critic" else set()
        assert flat == below, "a critic's new head is 0, so at first it has no gradient to give to the layers below"
        assert all(gradient.any() for gradient in second.values())


@pytest.mark.parametrize("masked", [False, True])
def test_grpos_gradient_is_that_of_its_words(
    masked: bool, models: tuple[Path, Path], step_of: Callable[[str, Case], Step]
) -> None:
    """By transformers and a loop over the rows. At the first update all ratios are 1 and nothing is clipped."""
    batch = rows(masked=masked).get()
    ones = batch.ragged("response_ids").like(np.ones_like(batch.ragged("response_ids").values))
    mask = [row.tolist() for row in (batch.ragged("loss_mask") if masked else ones)]
    policy, other = (reference.load(folder) for folder in models)
    lengths = batch.lengths("response_ids").tolist()
    log_probs, ref = (
        reference.statistics(reference.row_logits(m, batch), batch)[0].split(lengths) for m in (policy, other)
    )
    scores, groups = batch.dense("score").tolist(), batch.dense("group_id").tolist()
    losses: list[Tensor] = []
    for row, length in enumerate(lengths):
        if not any(mask[row]):
            continue
        peers = [scores[other] for other in range(12) if any(mask[other]) and groups[other] == groups[row]]
        deviation = statistics.stdev(peers) if len(peers) > 1 else 0.0
        advantage = (scores[row] - statistics.mean(peers)) / (deviation + 1e-6)
        for token in [at for at in range(length) if mask[row][at]]:
            log_prob = log_probs[row][token]
            away = ref[row][token].detach() - log_prob
            losses.append(-advantage * (log_prob - log_prob.detach()).exp() + 0.1 * (away.exp() - away - 1))
    torch.stack(losses).mean().backward()
    found = step_of("grpo", ALONE, (), masked)[0]["actor"][0]  # type: ignore[call-arg]
    assert set(found) == {name for name, _ in policy.named_parameters()}
    for name, param in policy.named_parameters():
        assert apart(found[name], param.grad) < 1e-4, name
