"""Updates that take their own log-probs for old ones, beside the same updates on rows that a pass has scored."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridflow.algorithms.grpo import GRPO
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.batch.weight_versions import one_run
from hybridflow.config.schema import ComponentConfig, Config, DType
from hybridflow.dispatch import Call
from hybridflow.parallel.layout import Layout
from hybridflow.tasks.grades import learnable
from tests.conftest import GetRanks
from tests.engines.rank_functions import Arrays, merged
from tests.spmd import Ranks
from tests.workers import step_rank_functions as rank_functions
from tests.workers.test_steps import ALONE, CASES, Case, Group, Scores, config_of, rows

pytestmark = pytest.mark.ranks


class Scored(GRPO):
    """GRPO whose rows are all scored before."""

    first_update_scores = False


Step = tuple[list[Any], list[Any], dict[str, float]]


@pytest.fixture(scope="module")
def step_of(ranks: GetRanks, models: tuple[Path, Path]) -> Callable[..., Step]:
    """`step_of(flow, case, minibatches)`: the gradients of a step, the weights after it, and what it measured."""

    @cache
    def get(flow: type[GRPO], case: Case, minibatches: int, masked: bool = False) -> Step:
        layout, budget, order = case
        config, on = config_of("grpo", *models, budget), ranks(layout.size)
        config.algorithm.epochs, config.algorithm.minibatches = 1, minibatches
        config.algorithm.policy_loss.correction = ComponentConfig("row_truncated")
        made = {role: Group(role, layout, on) for role in ("actor", "reference")}
        on.run(rank_functions.build, config, layout, tuple(made))
        algorithm = flow(config.algorithm, {**made, "reward": Scores()})
        algorithm.generate = lambda prompts, **_: prompts  # type: ignore[method-assign]
        algorithm.step(rows(masked=masked).select(order))
        measured = made["actor"].metrics[0]
        for metrics in made["actor"].metrics[1:]:
            measured.add(metrics)
        gradients = [merged(list(stages)) for stages in zip(*on.run(rank_functions.steps, "actor"), strict=True)]
        return gradients, [merged(on.run(rank_functions.weights_of, "actor"))], measured.result()

    return get


def expect_same(found: Arrays, expected: Arrays) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.parametrize(
    ("case", "minibatches", "masked"),
    [
        ("alone", 1, False),
        ("alone", 3, False),
        ("budget", 2, True),
        ("dp2", 1, True),
        ("tp2", 1, False),
        ("pp2", 2, False),
    ],
)
def test_a_step_is_that_of_rows_that_were_scored_before(
    case: str, minibatches: int, masked: bool, step_of: Callable[..., Step]
) -> None:
    """Gradients, weights and all that is measured, the KL and the correction's weights too."""
    where = {**CASES, "alone": ALONE}[case]
    gradients, weights, measured = step_of(GRPO, where, minibatches, masked)
    expected, after, metrics = step_of(Scored, where, minibatches, masked)
    assert len(gradients) == len(expected) == minibatches
    for mine, theirs in zip([*gradients, *weights], [*expected, *after], strict=True):
        expect_same(mine, theirs)
    unlike = ("memory_peak_gib", "tflops_per_rank", "timing_s/")
    for name in sorted({*measured, *metrics}):
        if not any(part in name for part in unlike):
            assert measured.get(name) == pytest.approx(metrics.get(name), abs=1e-5, rel=1e-5), name
    assert {"actor/kl", "actor/entropy", "actor/rollout_log_prob_diff_mean", "rollout/version_lag_max"} <= {*measured}
    assert "rollout_correction/effective_share" in measured


@pytest.mark.parametrize("case", ["alone", "dp2-order", "tp2", "pp2"])
def test_what_an_update_took_is_recalled_for_its_rows(case: str, ranks: GetRanks, models: tuple[Path, Path]) -> None:
    """The numbers that a pass before it gives; of rows that it did not learn from, and of any others, none."""
    layout, budget, order = {**CASES, "alone": ALONE}[case]
    config, on = config_of("grpo", *models, budget), ranks(layout.size)
    config.algorithm.policy_loss.kl_coef = 0.0
    on.run(rank_functions.build, config, layout, ("actor",))
    actor = Group("actor", layout, on)
    batch = rows(masked=True).select(order)
    responses = batch.get().ragged("response_ids")
    rewards = np.where(np.arange(12) == 5, np.nan, 1.0).astype(np.float32)
    advantages = responses.like(np.ones(len(responses.values), np.float32))
    batch |= BatchRef.from_local(Batch(rewards=rewards, advantages=advantages))
    expected = actor.compute_log_prob(batch).get().ragged("old_log_probs")
    assert not actor.recall_log_probs(batch).get().lengths("old_log_probs").any(), "there was no update"
    actor.update_actor(batch)
    found = actor.recall_log_probs(batch).get().ragged("old_log_probs")
    learned = learnable(batch.get())
    assert 0 < learned.sum() < 12 and not found.lengths[~learned].any()
    for row in np.flatnonzero(learned):
        np.testing.assert_allclose(found[row], expected[row], atol=1e-5, rtol=0)
    others = batch.select(np.arange(12)[::-1])
    assert not actor.recall_log_probs(others).get().lengths("old_log_probs").any()


def sampled(version: int = 0, apart: float = 0.0) -> Batch:
    """Rows as generation gives them, without old log-probs, whose sampler is so far from whatever scores them."""
    rng = np.random.default_rng(3)
    responses = Ragged.of([rng.integers(2, 44, n) for n in (9, 4, 12, 1, 7, 11)])
    column = responses.like(rng.normal(0, 1, len(responses.values)).astype(np.float32))
    return Batch(
        prompt_ids=Ragged.of([rng.integers(2, 44, n) for n in (3, 1, 6, 4, 5, 2)]),
        response_ids=responses,
        rollout_log_probs=responses.like(np.full(len(responses.values), apart, dtype=np.float32)),
        weight_version=one_run(version, responses.lengths),
        advantages=column,
    )


def build(ranks: Ranks, folder: Path, layout: Layout, **changes: Any) -> Config:
    config = Config()
    config.actor.model.path = str(folder)
    config.actor.optimizer.lr = 1e-3
    bound = config.rollout.max_log_prob_diff
    bound.float32 = bound.bfloat16 = changes.pop("bound", 0.0)
    config.actor.max_tokens_per_rank = 25
    for name, value in changes.items():
        setattr(config.actor.model if name == "dtype" else config.algorithm.policy_loss, name, value)
    ranks.run(rank_functions.build, config, layout, ("actor",))
    return config


def update(ranks: Ranks, batch: Batch, world: int = 1) -> dict[str, float]:
    [(_, metrics), *_] = ranks.run(rank_functions.call, "actor", "update_actor", [Call((batch,), {})] * world)
    return metrics.result()


@pytest.mark.parametrize("name", ["gspo", "ppo_clip"])
@pytest.mark.parametrize("dtype", [DType.float32, DType.bfloat16])
def test_ratios_are_exactly_1(name: str, dtype: DType, ranks1: Ranks, models: tuple[Path, Path]) -> None:
    """Also by GSPO's bounds of 3e-4, which in bfloat16 a pass of other micro-batches goes beyond by its rounding."""
    build(ranks1, models[0], Layout(), name=name, dtype=dtype, correction=ComponentConfig("none"))
    metrics = update(ranks1, sampled())
    assert metrics["actor/ratio"] == 1.0
    assert metrics["actor/clip_fraction"] == metrics["actor/approx_kl"] == 0.0


@pytest.mark.parametrize("layout", [Layout(), Layout(1, 2), Layout(2)], ids=["alone", "pp2", "tp2"])
def test_rows_that_engines_disagree_about_are_refused_before_the_step(
    layout: Layout, ranks: GetRanks, models: tuple[Path, Path]
) -> None:
    """On all ranks alike, and what a step changes is as it was: the next update is as if nothing had been."""
    on = ranks(layout.size)
    build(on, models[0], layout, bound=0.001)
    calls = [Call((sampled(apart=-1.0),), {})] * layout.size
    for said, as_it_was, version in on.run(rank_functions.refused, "actor", "update_actor", calls):
        assert "of generation and training lie" in said and "None of these rows was trained on" in said
        assert as_it_was and version == 0
    older = sampled() | Batch(old_log_probs=sampled().ragged("rollout_log_probs"))
    found = update(on, older, layout.size)
    build(on, models[0], layout, bound=0.001)
    expected = update(on, older, layout.size)
    assert found["actor/grad_norm"] == expected["actor/grad_norm"]


def test_rows_are_learned_from_once(ranks1: Ranks, models: tuple[Path, Path]) -> None:
    """A second update's own log-probs are those of another policy than the step began with: its ratio would be 1."""
    build(ranks1, models[0], Layout())
    update(ranks1, sampled())
    [(said, as_it_was, version)] = ranks1.run(rank_functions.refused, "actor", "update_actor", [Call((sampled(),), {})])
    assert "6 rows without old_log_probs were sampled by weights that have been updated since" in said
    assert "rollout |= self.actor.compute_log_prob(rollout)" in said
    assert as_it_was and version == 1
    assert update(ranks1, sampled(version=1))["actor/updates"] == 1, "rows of the newest weights are new"


def test_a_schedule_that_samples_behind_learns_from_older_rows(ranks1: Ranks, models: tuple[Path, Path]) -> None:
    """The policy that its step begins with is the one whose update it is, whoever sampled the rows."""
    config = build(ranks1, models[0], Layout())
    config.trainer.schedule = "one_step_off"
    ranks1.run(rank_functions.build, config, Layout(), ("actor",))
    update(ranks1, sampled())
    metrics = update(ranks1, sampled())
    assert metrics["rollout/version_lag_max"] == 1 and metrics["actor/ratio"] == 1.0


def test_rows_that_nobody_knows_the_sampler_of_must_be_scored() -> None:
    from hybridflow.dispatch import methods
    from hybridflow.roles import roles

    declared = methods(roles.get("actor"))["update_actor"]
    known = sampled()
    own = declared.of_call((BatchRef.from_local(known),), {})
    assert "old_log_probs" not in (own.reads or ()) and {"weight_version", "rollout_log_probs"} <= {*(own.reads or ())}
    unknown = known.select_columns([name for name in known.columns if name != "weight_version"])
    assert "old_log_probs" in (declared.of_call((unknown,), {}).needs or ())
