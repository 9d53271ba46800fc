"""What samples share of a prompt is computed once, also of short prompts, and shows in no row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hybridflow.batch import Ragged
from hybridflow.engines.sampling import Generated
from hybridflow.parallel.platform import platform
from tests.conftest import GetModel
from tests.engines.vllm import prefix_rank_functions as rank_functions
from tests.spmd import Ranks

pytestmark = [pytest.mark.ranks, pytest.mark.usefixtures("one_vllm_a_process")]

SAMPLES = 8
SEEDS = [1000 + row for row in range(2 * SAMPLES)]


@pytest.fixture(scope="module")
def folder(tiny: GetModel) -> Path:
    return tiny(vocab=70, layers=2, positions=512)


def two_prompts(tokens: int) -> Ragged:
    """Two groups, the samples of one after those of the other."""
    rng = np.random.default_rng(tokens)
    return Ragged.of([prompt for prompt in rng.integers(2, 44, (2, tokens)) for _ in range(SAMPLES)])


def hit_fraction(found: Generated, prompts: Ragged) -> float:
    return float(found.cached_tokens.sum() / prompts.lengths.sum())


def found_row(found: Generated, row: int) -> Generated:
    """One of several rows."""
    rows = np.array([row])
    return Generated(
        found.tokens.select(rows), found.log_probs.select(rows), found.ended_by[rows], found.cached_tokens[rows]
    )


def assert_same(found: Generated, expected: Generated) -> None:
    """The same tokens, and log-probs within the rounding of float32."""
    assert found.tokens == expected.tokens
    np.testing.assert_allclose(found.log_probs.values, expected.log_probs.values, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("tokens", "at_least"), [(60, 0.4), (400, 0.8)])
def test_samples_of_a_prompt_that_begin_together_compute_it_once(
    tokens: int, at_least: float, folder: Path, ranks1: Ranks
) -> None:
    """All but its last tokens, fewer than a block, and never none, as the first token is drawn from the last one."""
    prompts = two_prompts(tokens)
    [found] = ranks1.run(rank_functions.at_once, folder, prompts, SEEDS)
    block = 32 if platform().name == "cpu" else 16
    shared = (tokens - 1) // block * block
    assert found.cached_tokens.tolist() == 2 * [0, *[shared] * (SAMPLES - 1)]
    assert hit_fraction(found, prompts) >= at_least
    [alone] = ranks1.run(rank_functions.one_by_one, folder, prompts.select(np.arange(SAMPLES + 1)), SEEDS)
    assert [len(one.tokens) for one in alone] == [1] * (SAMPLES + 1)
    assert not any(one.cached_tokens.any() for one in alone), "nothing is left of the call before"
    for row, one in enumerate(alone):
        assert_same(one, found_row(found, row))


@pytest.mark.parametrize("together", [1, SAMPLES, 2 * SAMPLES])
def test_rows_that_join_a_session_find_what_others_of_their_prompt_have_computed(
    together: int, folder: Path, ranks1: Ranks
) -> None:
    prompts = two_prompts(60)
    [found] = ranks1.run(rank_functions.joining, folder, prompts, SEEDS, together)
    assert hit_fraction(found, prompts) >= 0.4
    [at_once] = ranks1.run(rank_functions.at_once, folder, prompts, SEEDS)
    assert_same(found, at_once)
    assert found.cached_tokens.tolist() == at_once.cached_tokens.tolist()


def test_a_call_repeats_bit_for_bit_whatever_came_before(folder: Path, ranks1: Ranks) -> None:
    prompts = two_prompts(60)
    [first] = ranks1.run(rank_functions.at_once, folder, prompts, SEEDS)
    ranks1.run(rank_functions.at_once, folder, two_prompts(61), SEEDS)
    [again] = ranks1.run(rank_functions.at_once, folder, prompts, SEEDS)
    assert again.tokens == first.tokens and again.log_probs.values.tobytes() == first.log_probs.values.tobytes()
    assert again.cached_tokens.tolist() == first.cached_tokens.tolist()
