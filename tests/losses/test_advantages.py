"""Advantage estimators against loops over rows and tokens."""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hybridflow.losses.advantages import AdvantageInputs, advantages, estimator, gae, grpo, needs, whitened
from tests.losses.replay import Ranks

LENGTHS = st.lists(st.integers(0, 7), max_size=8)
UNIT = st.floats(0, 1, width=32)


def build_tokens(lengths: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, sum(lengths), generator=random).unbind()
    return rewards, values, torch.tensor(lengths, dtype=torch.int64)


def gae_loop(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> list[float]:
    """One row, straight from equation 16: the sum over all later tokens of (gamma lam)^k times delta."""
    later = [*values.tolist(), 0.0][1:]
    deltas = [float(r) + gamma * v - float(u) for r, v, u in zip(rewards, later, values, strict=True)]
    return [sum((gamma * lam) ** k * d for k, d in enumerate(deltas[t:])) for t in range(len(deltas))]


@given(LENGTHS, st.integers(0, 2**31), UNIT, UNIT)
def test_gae_against_a_loop(lengths: list[int], seed: int, gamma: float, lam: float) -> None:
    rewards, values, packed = build_tokens(lengths, seed)
    found, returns = gae(AdvantageInputs(rewards, packed, values), gamma=gamma, lam=lam, whiten=False)
    rows = zip(rewards.split(lengths), values.split(lengths), strict=True) if lengths else []
    expected = [a for r, v in rows for a in gae_loop(r, v, gamma, lam)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(returns, found + values)


def test_gae_with_lam_1_returns_what_is_still_to_come() -> None:
    inputs = AdvantageInputs(torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([3, 0, 1]), torch.randn(4))
    assert gae(inputs, lam=1.0, whiten=False)[1].tolist() == pytest.approx([7.0, 6.0, 4.0, 8.0], abs=1e-5)


def test_gae_whitens_the_advantages_and_leaves_the_returns() -> None:
    rewards, values, lengths = build_tokens([5, 1, 0, 4], seed=3)
    inputs = AdvantageInputs(rewards, lengths, values)
    plain, returns = gae(inputs, whiten=False)
    white, same = gae(inputs)
    expected = [(float(a) - statistics.mean(plain.tolist())) / statistics.stdev(plain.tolist()) for a in plain]
    torch.testing.assert_close(white, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert same.tolist() == returns.tolist()


def test_gae_gives_no_gradient() -> None:
    values = torch.zeros(2, requires_grad=True)
    found, returns = gae(AdvantageInputs(torch.ones(2), torch.tensor([2]), values))
    assert not found.requires_grad and not returns.requires_grad


def test_gae_is_vectorised_over_rows() -> None:
    lengths = torch.randint(1, 20, (20_000,), generator=torch.Generator().manual_seed(0))
    tokens = int(lengths.sum())
    inputs = AdvantageInputs(torch.ones(tokens), lengths, torch.zeros(tokens))
    began = time.process_time()
    gae(inputs)
    assert time.process_time() - began < 1.0  # a loop over the rows takes several


@given(st.lists(LENGTHS, min_size=1, max_size=4), st.integers(0, 2**31))
def test_whitening_over_ranks_is_whitening_of_the_whole(parts: list[list[int]], seed: int) -> None:
    rewards, values, packed = build_tokens([n for part in parts for n in part], seed)
    whole = gae(AdvantageInputs(rewards, packed, values))
    tokens, rows = [sum(part) for part in parts], [len(part) for part in parts]
    cut = zip(rewards.split(tokens), packed.split(rows), values.split(tokens), strict=True)
    found = Ranks().run(gae, [AdvantageInputs(r, n, v) for r, n, v in cut])
    for at in (0, 1):
        torch.testing.assert_close(torch.cat([f[at] for f in found]), whole[at], rtol=1e-4, atol=1e-5)


def test_whitening_one_token_or_equal_ones_gives_zeros() -> None:
    assert whitened(torch.tensor([5.0])).tolist() == [0.0]
    assert whitened(torch.full((3,), 0.1)).tolist() == pytest.approx([0.0] * 3, abs=1e-6)
    assert whitened(torch.zeros(0)).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 2)), max_size=10), st.integers(0, 2**31), st.booleans())
def test_grpo_against_a_loop(rows: list[tuple[int, int]], seed: int, normalize: bool) -> None:
    lengths, groups = [n for n, _ in rows], [g for _, g in rows]
    rewards, _, packed = build_tokens(lengths, seed)
    totals = [float(r.sum()) for r in rewards.split(lengths)] if lengths else []
    expected: list[float] = []
    for total, length, group in zip(totals, lengths, groups, strict=True):
        peers = [t for t, n, g in zip(totals, lengths, groups, strict=True) if g == group and n]
        advantage = total - statistics.mean(peers) if peers else 0.0
        if normalize:
            advantage /= (statistics.stdev(peers) if len(peers) > 1 else 0.0) + 1e-6
        expected += [advantage] * length
    inputs = AdvantageInputs(rewards, packed, group_id=torch.tensor(groups, dtype=torch.int64))
    found, returns = grpo(inputs, normalize_std=normalize)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-3, atol=1e-3)
    assert found.tolist() == returns.tolist()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("reward", [0.1, 0.0, -1e6, 1e6 + 0.3])
def test_grpo_gives_exactly_nothing_for_equal_rewards_and_lone_rows(reward: float, normalize: bool) -> None:
    group_id = torch.tensor([size for size in range(1, 20) for _ in range(size)])
    inputs = AdvantageInputs(torch.full(group_id.shape, reward), torch.ones_like(group_id), group_id=group_id)
    assert (grpo(inputs, normalize_std=normalize)[0] == 0).all()


def test_grpo_leaves_empty_rows_out_of_their_group() -> None:
    inputs = AdvantageInputs(torch.tensor([1.0, 3.0]), torch.tensor([1, 0, 1]), group_id=torch.tensor([0, 0, 0]))
    assert grpo(inputs, normalize_std=False)[0].tolist() == [-1.0, 1.0]


def test_needs_are_declared() -> None:
    assert {name: needs(name) for name in advantages} == {
        "gae": ("values",),
        "gdpo": ("group_id",),
        "grpo": ("group_id",),
        "reinforce_plus_plus": (),
        "reinforce_plus_plus_baseline": ("group_id",),
        "remax": ("baseline_rewards",),
        "rloo": ("group_id",),
    }


@pytest.mark.parametrize(("name", "column"), [("gae", "values"), ("grpo", "group_id")])
def test_a_missing_column_is_named(name: str, column: str) -> None:
    with pytest.raises(ValueError, match=column):
        advantages.get(name)(AdvantageInputs(torch.zeros(1), torch.tensor([1])))


def test_an_estimator_takes_its_options() -> None:
    inputs = AdvantageInputs(torch.tensor([1.0, 2.0]), torch.tensor([2]), torch.zeros(2))
    found, _ = estimator("gae", {"gamma": 0.5, "lam": 1.0, "whiten": False})(inputs)
    assert found.tolist() == [2.0, 2.0]


def test_another_column_has_one_entry_a_row_or_a_token() -> None:
    good = {"token_rewards": torch.zeros(3), "lengths": torch.tensor([1, 2])}
    for size in (2, 3):
        assert len(AdvantageInputs(**good, columns={"style": torch.zeros(size)}).columns["style"]) == size
    with pytest.raises(ValueError, match="column 'style' has 4 entries; one a row or one a token was expected"):
        AdvantageInputs(**good, columns={"style": torch.zeros(4)})


def test_an_unknown_option_is_named_beside_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'gae'.*lamda.*lam="):
        estimator("gae", {"lamda": 0.9})


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"token_rewards": torch.zeros(2)}, "token_rewards"),
        ({"values": torch.zeros(4)}, "values"),
        ({"group_id": torch.zeros(1)}, "group_id"),
        ({"baseline_rewards": torch.zeros(3)}, "baseline_rewards"),
    ],
)
def test_disagreeing_shapes_are_named(columns: dict[str, Tensor], name: str) -> None:
    good = {"token_rewards": torch.zeros(3), "lengths": torch.tensor([1, 2])}
    with pytest.raises(ValueError, match=f"{name} has"):
        AdvantageInputs(**{**good, **columns})
