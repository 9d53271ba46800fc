"""Scores and updates of rows of which some tokens are not learned from, on a rank, against transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.batch.weight_versions import one_run
from hybridflow.config.schema import ComponentConfig, Config
from hybridflow.parallel.layout import Layout
from tests.engines import reference
from tests.spmd import Ranks
from tests.workers import step_rank_functions as rank_functions

pytestmark = pytest.mark.ranks

MASKS = [[1, 0, 0, 1, 1], [0], [0, 1, 1, 1, 0, 1, 1], [1, 0]]
REJECTED_MASKS = [[0, 1], [1, 1, 0, 1], [1, 1, 1], [0, 0, 1]]
UPDATES = {"actor": "update_actor", "critic": "update_critic"}
READ = {
    "actor": ("old_log_probs", "advantages", "ref_log_probs", "rollout_log_probs"),
    "critic": ("values", "returns"),
}
Result = tuple[Batch, dict[str, float]]


@pytest.fixture(scope="module")
def roles(ranks1: Ranks, models: tuple[Path, Path]) -> Ranks:
    """One rank with an actor, a critic and a reference, none of which moves."""
    config = Config()
    for role in (config.actor, config.critic):
        role.optimizer.lr = role.optimizer.weight_decay = 0.0
    config.actor.model.path, config.reference.model.path = map(str, models)
    config.critic.model.path = config.actor.model.path
    loss = config.algorithm.policy_loss
    loss.kl_coef, loss.entropy_coef, loss.correction = 0.1, 0.01, ComponentConfig("row_truncated")
    ranks1.run(rank_functions.build, config, Layout(), ("actor", "critic", "reference"))
    return ranks1


def build_rows(masks: list[list[int]] | None = None) -> Batch:
    """What an update reads, of rows with the lengths of `MASKS`."""
    rng, lengths = np.random.default_rng(7), list(map(len, MASKS))
    responses = Ragged.of([rng.integers(2, 44, n) for n in lengths])
    tokens = {name: rng.normal(-1, 0.3, sum(lengths)).astype(np.float32) for names in READ.values() for name in names}
    rows = Batch(
        prompt_ids=Ragged.of([rng.integers(2, 44, n) for n in (3, 1, 6, 4)]),
        response_ids=responses,
        weight_version=one_run(0, responses.lengths),
        **{name: responses.like(values) for name, values in tokens.items()},
    )
    return rows if masks is None else rows | Batch(loss_mask=Ragged.of(masks))


def call(on: Ranks, role: str, method: str, batch: Batch) -> Result:
    [(given, metrics)] = on.run(rank_functions.call, role, method, [rank_functions.Call((batch,), {})])
    said = {name: value for name, value in metrics.items() if not name.endswith(("memory_peak_gib", "tflops_per_rank"))}
    return given, said


def update(on: Ranks, role: str, method: str, batch: Batch) -> tuple[Mapping[str, Any], dict[str, float]]:
    """The gradient of an update, and what it measured."""
    _, metrics = call(on, role, method, batch)
    return on.run(rank_functions.steps, role)[0][-1], metrics


def expect_same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        assert np.isfinite(np.asarray(gradient)).all() and np.array_equal(found[name], gradient), name


@pytest.mark.parametrize("role", UPDATES)
def test_nothing_of_masked_tokens_reaches_a_gradient(role: str, roles: Ranks) -> None:
    """NaN would show in everything that it is added to, and in everything that it is multiplied with, 0 included."""
    rows, masked = build_rows(MASKS), ~np.concatenate(MASKS).astype(bool)
    spoilt: dict[str, Any] = dict(rows.items())
    for column in READ[role]:
        values = rows.ragged(column).values.copy()
        values[masked] = np.nan
        spoilt[column] = rows.ragged(column).like(values)
    found, said = update(roles, role, UPDATES[role], Batch(**spoilt))
    expected, metrics = update(roles, role, UPDATES[role], rows)
    expect_same(found, expected)
    assert said == metrics and metrics[f"{role}/trained_rows"] == 3


@pytest.mark.parametrize(("role", "method"), [*UPDATES.items(), ("actor", "update_supervised")])
def test_a_mask_of_ones_is_no_mask_to_the_last_bit(role: str, method: str, roles: Ranks) -> None:
    ones = [[1] * len(mask) for mask in MASKS]
    found, said = update(roles, role, method, build_rows(ones))
    expected, metrics = update(roles, role, method, build_rows())
    expect_same(found, expected)
    assert said == metrics


def test_rows_that_were_cut_off_can_be_left_out(roles: Ranks) -> None:
    """DAPO's overlong filtering, as a mask: the update is that of the other rows."""
    truncated = np.array([False, True, True, False])
    masks = [[int(not cut)] * len(mask) for mask, cut in zip(MASKS, truncated, strict=True)]
    found, said = update(roles, "actor", "update_actor", build_rows(masks))
    expected, metrics = update(roles, "actor", "update_actor", build_rows().select(np.flatnonzero(~truncated)))
    expect_same(found, expected)
    assert said == metrics


@pytest.mark.parametrize(
    ("role", "method", "column"),
    [
        ("actor", "compute_log_prob", "old_log_probs"),
        ("reference", "compute_ref_log_prob", "ref_log_probs"),
        ("critic", "compute_values", "values"),
    ],
)
def test_only_learned_tokens_are_scored(role: str, method: str, column: str, roles: Ranks) -> None:
    rows, plain = build_rows(MASKS), build_rows()
    (found, said), (every, _) = call(roles, role, method, rows), call(roles, role, method, plain)
    learned, scores, expected = LearnedTokens.of(rows), found.ragged(column), every.ragged(column)
    np.testing.assert_allclose(learned.pick(scores), learned.pick(expected), atol=1e-6)
    assert not scores.values[~np.concatenate(MASKS).astype(bool)].any()
    if role == "actor":
        away = np.abs(learned.pick(scores) - learned.pick(rows.ragged("rollout_log_probs")))
        assert said["actor/rollout_log_prob_diff_mean"] == pytest.approx(away.mean(), abs=1e-5)
        assert said["actor/rollout_log_prob_diff_max"] == pytest.approx(away.max(), abs=1e-5)


def statistics_of(folder: Path, batch: Batch) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return reference.statistics(reference.row_logits(reference.load(folder), batch), batch, None)


def test_means_are_over_learned_tokens(roles: Ranks, models: tuple[Path, Path]) -> None:
    rows = build_rows(MASKS)
    mask = torch.from_numpy(np.concatenate(MASKS).astype(bool))
    log_probs, entropy, *_ = statistics_of(models[0], rows)
    assert call(roles, "actor", "compute_log_prob", rows)[1]["actor/entropy"] == pytest.approx(
        float(entropy[mask].mean()), abs=1e-5
    )
    nll = -float(log_probs[mask].mean())
    assert call(roles, "actor", "update_supervised", rows)[1]["actor/nll"] == pytest.approx(nll, abs=1e-5)


def build_pairs(masked: bool) -> Batch:
    rejected = build_rows().ragged("response_ids").select(np.array([3, 2, 1, 0]))
    lengths = list(map(len, REJECTED_MASKS))
    rejected = Ragged.of([rejected.values[:length] for length in lengths])
    pairs = build_rows(MASKS if masked else None) | Batch(rejected_ids=rejected)
    return pairs | Batch(rejected_loss_mask=Ragged.of(REJECTED_MASKS)) if masked else pairs


def sums(folder: Path, pairs: Batch, column: str, masks: list[list[int]]) -> Tensor:
    """[P] the log-probs of the learned tokens of one side."""
    side = Batch(prompt_ids=pairs.ragged("prompt_ids"), response_ids=pairs.ragged(column))
    log_probs = statistics_of(folder, side)[0] * torch.from_numpy(np.concatenate(masks))
    return torch.stack([row.sum() for row in log_probs.split(list(map(len, masks)))])


def test_a_preference_is_of_the_learned_tokens_of_its_sides(roles: Ranks, models: tuple[Path, Path]) -> None:
    """A pair of which one side has none, the second here, is left out."""
    pairs = build_pairs(masked=True)
    given, _ = call(roles, "reference", "compute_ref_pair", pairs)
    masks = (("response_ids", MASKS), ("rejected_ids", REJECTED_MASKS))
    (chosen, rejected), both_ref = ([sums(folder, pairs, *side) for side in masks] for folder in models)
    for column, by_reference in zip(("ref_chosen", "ref_rejected"), both_ref, strict=True):
        np.testing.assert_allclose(given.dense(column), by_reference, atol=1e-4)
    losses = -F.logsigmoid(0.1 * ((chosen - both_ref[0]) - (rejected - both_ref[1])))
    _, metrics = call(roles, "actor", "update_preferred", pairs | given)
    assert metrics["actor/dpo_loss"] == pytest.approx(float(losses[[0, 2, 3]].mean()), abs=1e-5)
    assert metrics["actor/trained_rows"] == 3


def test_a_side_without_its_mask_is_learned_from_whole(roles: Ranks) -> None:
    pairs = build_pairs(masked=True)
    one_sided = Batch(**{name: column for name, column in pairs.items() if name != "rejected_loss_mask"})
    given, _ = call(roles, "reference", "compute_ref_pair", one_sided)
    masked, _ = call(roles, "reference", "compute_ref_pair", pairs)
    whole, _ = call(roles, "reference", "compute_ref_pair", build_pairs(masked=False))
    np.testing.assert_allclose(given.dense("ref_rejected"), whole.dense("ref_rejected"), atol=1e-5)
    np.testing.assert_allclose(given.dense("ref_chosen"), masked.dense("ref_chosen"), atol=1e-5)
