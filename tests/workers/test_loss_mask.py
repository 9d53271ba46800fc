"""Advantages of rows of which some tokens are not learned from, against loops over the tokens that are."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.config.schema import AdvantageConfig, ComponentConfig
from hybridflow.tasks.grades import over_learnable
from tests.workers.test_advantage import estimation

MASKS = [[1, 1, 0, 0, 1], [0, 1, 1], [1], [0, 0, 0], [1, 0], [0, 1, 0, 1, 1, 0], [1, 1, 1]]
GROUPS = [0, 0, 1, 1, 1, 2, 2]
LEARNED = [row for row, mask in enumerate(MASKS) if any(mask)]
GAMMA, LAM, KL = 0.9, 0.8, 0.3
COLUMNS = ("values", "old_log_probs", "ref_log_probs")


def build_rollout(masks: list[list[int]] | None = None) -> Batch:
    """Rows of the lengths of `MASKS`; of a `masks` of other lengths nothing is right."""
    rng, lengths = np.random.default_rng(3), list(map(len, MASKS))
    responses = Ragged.of([rng.integers(2, 40, length) for length in lengths], np.int64)
    tokens = {name: responses.like(rng.normal(size=sum(lengths)).astype(np.float32)) for name in COLUMNS}
    rows = Batch(
        response_ids=responses,
        rewards=rng.normal(size=len(lengths)).astype(np.float32),
        baseline_rewards=rng.normal(size=len(lengths)).astype(np.float32),
        group_id=np.array(GROUPS),
        **tokens,
    )
    return rows if masks is None else rows | Batch(loss_mask=Ragged.of(masks, np.int64))


def estimated(rows: Batch, name: str, options: dict[str, Any] | None = None) -> Batch:
    """What the actor's worker gives for these rows, of one rank."""
    part = AdvantageConfig(name, options or {})
    return over_learnable(rows, lambda some: estimation(some, part).plain(KL))


def token_rewards(rows: Batch, row: int) -> list[float]:
    """Of the learned tokens of a row: its KL, and its score at the last of them."""
    away = (rows.ragged("old_log_probs")[row] - rows.ragged("ref_log_probs")[row]).tolist()
    found = [-KL * kl for kl, learned in zip(away, MASKS[row], strict=True) if learned]
    found[-1] += float(rows.dense("rewards")[row])
    return found


def to_come(rewards: list[float], gamma: float) -> list[float]:
    return [sum(gamma**k * reward for k, reward in enumerate(rewards[at:])) for at in range(len(rewards))]


def gae(rows: Batch, row: int) -> list[float]:
    """By a walk from the end over all tokens: what comes next passes over those that are not learned from."""
    rewards, values = token_rewards(rows, row), rows.ragged("values")[row].tolist()
    found: list[float] = []
    coming_value = coming_advantage = 0.0
    for token in reversed(range(len(values))):
        if not MASKS[row][token]:
            continue
        delta = rewards.pop() + GAMMA * coming_value - values[token]
        coming_value, coming_advantage = values[token], delta + GAMMA * LAM * coming_advantage
        found.insert(0, coming_advantage)
    return found


def whitened(rows: list[list[float]]) -> list[list[float]]:
    every = [value for row in rows for value in row]
    mean, deviation = statistics.mean(every), statistics.stdev(every)
    return [[(value - mean) / deviation for value in row] for row in rows]


def of_group(rows: Batch, row: int, *, without_itself: bool = False) -> list[float]:
    """The scores of a row's group; those that have nothing to learn from are no members."""
    others = [other for other in LEARNED if GROUPS[other] == GROUPS[row] and not (without_itself and other == row)]
    return [sum(token_rewards(rows, other)) for other in others]


def by_loops(rows: Batch, name: str) -> list[list[float]]:
    """The advantages of the learned tokens of the rows that have any."""
    scores = {row: sum(token_rewards(rows, row)) for row in LEARNED}
    counts = {row: sum(MASKS[row]) for row in LEARNED}
    if name in ("gae", "gae-whitened"):
        found = [gae(rows, row) for row in LEARNED]
        return whitened(found) if name == "gae-whitened" else found
    if name == "reinforce_plus_plus":
        return whitened([to_come(token_rewards(rows, row), GAMMA) for row in LEARNED])
    if name == "remax":
        greedy = rows.dense("baseline_rewards").tolist()
        return [[reward - greedy[row] for reward in to_come(token_rewards(rows, row), 1.0)] for row in LEARNED]
    centered = {row: scores[row] - statistics.mean(of_group(rows, row)) for row in LEARNED}
    if name == "grpo":
        for row in LEARNED:
            members = of_group(rows, row)
            centered[row] /= (statistics.stdev(members) if len(members) > 1 else 0.0) + 1e-6
    if name == "rloo":
        for row in LEARNED:
            others = of_group(rows, row, without_itself=True)
            centered[row] = scores[row] - statistics.mean(others) if others else 0.0
    found = [[centered[row]] * counts[row] for row in LEARNED]
    return whitened(found) if name == "reinforce_plus_plus_baseline" else found


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gae": ("gae", {"gamma": GAMMA, "lam": LAM, "whiten": False}),
    "gae-whitened": ("gae", {"gamma": GAMMA, "lam": LAM}),
    "reinforce_plus_plus": ("reinforce_plus_plus", {"gamma": GAMMA}),
    **{name: (name, {}) for name in ("grpo", "rloo", "remax", "reinforce_plus_plus_baseline")},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_advantages_are_those_of_a_loop_over_learned_tokens(name: str) -> None:
    rows = build_rollout(MASKS)
    found = estimated(rows, *OPTIONS[name]).ragged("advantages")
    picked = LearnedTokens.of(rows).pick(found)
    expected = np.concatenate(by_loops(rows, name))
    assert np.abs(expected).max() > 0.1
    assert np.allclose(picked, expected, atol=1e-5)
    others = ~np.concatenate(MASKS).astype(bool)
    assert not found.values[others].any(), "a token that is not learned from has no advantage"


@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_of_masked_tokens_reaches_the_others(name: str) -> None:
    """NaN would show in everything that it is added to, and in everything that it is multiplied with, 0 included."""
    rows = build_rollout(MASKS)
    masked = ~np.concatenate(MASKS).astype(bool)
    spoilt: dict[str, Any] = dict(rows.items())
    for column in COLUMNS:
        values = rows.ragged(column).values.copy()
        values[masked] = np.nan
        spoilt[column] = rows.ragged(column).like(values)
    spoilt["rewards"] = np.where([any(mask) for mask in MASKS], rows.dense("rewards"), np.float32(1e6))
    found, expected = (estimated(of, *OPTIONS[name]) for of in (Batch(**spoilt), rows))
    assert found == expected


@pytest.mark.parametrize("name", OPTIONS)
def test_a_mask_of_ones_is_no_mask_to_the_last_bit(name: str) -> None:
    ones = [[1] * len(mask) for mask in MASKS]
    assert estimated(build_rollout(ones), *OPTIONS[name]) == estimated(build_rollout(), *OPTIONS[name])


@pytest.mark.parametrize("name", OPTIONS)
def test_a_row_without_a_learned_token_is_as_though_it_were_not_there(name: str) -> None:
    rows = build_rollout(MASKS)
    found, expected = estimated(rows, *OPTIONS[name]), estimated(rows.select(LEARNED), *OPTIONS[name])
    assert found.select(LEARNED) == expected


def test_a_shaping_sees_whole_responses_of_rows_that_are_learned_from() -> None:
    """The limit that `overlong` measures against is one of the whole response."""
    rows = build_rollout(MASKS)
    made = estimation(
        rows.select([0]), AdvantageConfig("grpo"), reward_shaping=ComponentConfig("overlong", {"buffer": 1.0})
    )
    made.context.config.rollout.max_response_tokens = 10
    shaped, _ = made._shaped_rewards()
    assert shaped.tolist() == pytest.approx([float(rows.dense("rewards")[0]) - 0.5])


def test_metrics_are_of_learned_tokens() -> None:
    rows = build_rollout(MASKS).select(LEARNED)
    made = estimation(rows, AdvantageConfig("gae", {"whiten": False}))
    found = made.plain(KL)
    learned = LearnedTokens.of(rows)
    kl = learned.pick(rows.ragged("old_log_probs")) - learned.pick(rows.ragged("ref_log_probs"))
    metrics = made.context.metrics
    assert metrics["actor/kl"] == pytest.approx(kl.mean(), abs=1e-6)
    for name in ("advantages", "returns"):
        assert metrics[f"critic/{name}"] == pytest.approx(learned.pick(found.ragged(name)).mean(), abs=1e-6)
    assert metrics["critic/advantages_max"] == learned.pick(found.ragged("advantages")).max()
    assert metrics["critic/advantages_min"] == learned.pick(found.ragged("advantages")).min()
    left = learned.pick(found.ragged("returns")) - learned.pick(rows.ragged("values"))
    explained = 1 - left.var() / learned.pick(found.ragged("returns")).var()
    assert metrics["critic/vf_explained_var"] == pytest.approx(explained, abs=1e-5)


def test_the_masks_of_these_tests_have_every_place_of_a_hole() -> None:
    """At the start, in the middle and at the end of a row, two rows_per_unit, and a whole row."""
    assert any(mask[0] < mask[-1] for mask in MASKS) and any(mask[0] > mask[-1] for mask in MASKS)
    assert any(
        first == 1 and 1 in mask[at + 1 :]
        for mask in MASKS
        for at, (first, then) in enumerate(pairwise(mask))
        if not then
    )
    assert [0, 0, 0] in MASKS
