"""Steps of vLLM that are taken together are those that it takes one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridflow.batch import Ragged
from hybridflow.engines.sampling import Generated, Sampling
from tests.conftest import GetModel
from tests.engines.vllm import step_rank_functions as rank_functions
from tests.spmd import Ranks

pytestmark = [pytest.mark.ranks, pytest.mark.usefixtures("one_vllm_a_process")]

ENDS = tuple(range(2, 12))  # token ids that a row meets now and then


@pytest.fixture(scope="module")
def folder(tiny: GetModel) -> Path:
    return tiny(vocab=70, layers=2, positions=512)


def ragged_prompts(rows: int) -> Ragged:
    rng = np.random.default_rng(rows)
    return Ragged.of([rng.integers(2, 44, 1 + 7 * row % 40) for row in range(rows)])


def assert_same_bits(found: Generated, expected: Generated) -> None:
    assert found.tokens == expected.tokens
    assert found.log_probs.values.tobytes() == expected.log_probs.values.tobytes()
    assert found.ended_by.tolist() == expected.ended_by.tolist()
    assert found.cached_tokens.tolist() == expected.cached_tokens.tolist()


@pytest.mark.parametrize(
    ("rows", "sampling"),
    [
        (6, Sampling(1.0, max_tokens=80)),
        (6, Sampling(0.0, max_tokens=80)),
        (6, Sampling(1.3, top_k=20, top_p=0.9, max_tokens=80, stop_token_ids=ENDS)),
        (6, Sampling(1.0, max_tokens=1)),
        (40, Sampling(1.0, max_tokens=40, stop_token_ids=ENDS[:2])),  # of which 32 are sampled together
    ],
    ids=["sampled", "likeliest", "ended", "one token", "waiting"],
)
def test_each_step_has_the_rows_and_gives_the_bits_that_it_would_by_itself(
    rows: int, sampling: Sampling, folder: Path, ranks1: Ranks
) -> None:
    call = folder, ragged_prompts(rows), sampling, list(range(rows))
    [together] = ranks1.run(rank_functions.counted, *call, single=False)
    [single] = ranks1.run(rank_functions.counted, *call, single=True)
    assert_same_bits(together.rows, single.rows)
    assert together.batches == single.batches


def test_rows_that_lose_their_blocks_to_others_go_on_with_the_same_bits(folder: Path, ranks1: Ranks) -> None:
    """Their numbers go on too, of which some were drawn before."""
    call = folder, ragged_prompts(8), Sampling(1.0, max_tokens=80), list(range(8))
    [together] = ranks1.run(rank_functions.counted, *call, single=False, blocks=16)
    [single] = ranks1.run(rank_functions.counted, *call, single=True, blocks=16)
    assert together.resumed == single.resumed > 0
    assert_same_bits(together.rows, single.rows)
    assert together.batches == single.batches
    [alone] = ranks1.run(rank_functions.counted, *call, single=False)
    assert alone.rows.tokens == together.rows.tokens


def test_the_scheduler_plans_where_a_row_ends_or_needs_a_block_and_vllm_for_each_token(
    folder: Path, ranks1: Ranks
) -> None:
    """As long as vLLM does, several steps at once are needed. Blocks are of 32 tokens on a CPU."""
    call = folder, Ragged.of([np.arange(2, 12)] * 4), Sampling(1.0, max_tokens=80), list(range(4))
    [together] = ranks1.run(rank_functions.counted, *call, single=False)
    [single] = ranks1.run(rank_functions.counted, *call, single=True)
    assert single.plans == len(single.batches) == 80
    assert together.plans <= 6


def test_where_a_text_may_end_a_row_each_token_is_looked_at(folder: Path, ranks1: Ranks) -> None:
    sampling = Sampling(1.0, max_tokens=12, stop=("zzzz",))
    [found] = ranks1.run(rank_functions.counted, folder, ragged_prompts(3), sampling, [0, 1, 2], single=False)
    assert found.plans == len(found.batches) == 12


def test_a_session_goes_on_by_a_token(folder: Path, ranks1: Ranks) -> None:
    """Rows may join it, be ended and be given other weights between two of them."""
    prompts, sampling = ragged_prompts(3), Sampling(1.0, max_tokens=20)
    ranks1.run(rank_functions.counted, folder, prompts, sampling, [0, 1, 2], single=False)
    assert ranks1.run(rank_functions.session_plans, folder, prompts, sampling) == [(1, 2)]


OTHERS: dict[str, Any] = {
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.1,
    "min_p": 0.1,
    "min_tokens": 2,
    "bad_words": ["7"],
    "logit_bias": {3: 1.0},
    "prompt_logprobs": 1,
    "n": 2,
    "seed": None,
}


def test_rows_that_our_steps_and_draws_would_sample_wrongly_are_refused(ranks1: Ranks) -> None:
    """Each parameter that they do not look at, by its name; greedy rows draw nothing."""
    given = [{}, {"temperature": 0.0, "seed": None}, *({name: value} for name, value in OTHERS.items())]
    [[seeded, greedy, *said]] = ranks1.run(rank_functions.refusals, given)
    assert seeded == greedy == ""
    for (name, value), line in zip(OTHERS.items(), said, strict=True):
        assert f" {name} = {value!r}" in line


def test_parameters_that_all_rows_of_a_call_share_are_looked_at_once(folder: Path, ranks1: Ranks) -> None:
    assert ranks1.run(rank_functions.looks_of_a_call, folder, Ragged.of([[2, 3, 4]] * 8)) == [1]
