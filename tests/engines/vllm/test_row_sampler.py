"""Our sampler draws what vLLM's draws, with fewer calls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hybridflow.batch import Ragged
from hybridflow.engines.sampling import Sampling
from hybridflow.parallel.platform import platform
from tests.conftest import GetModel
from tests.engines.vllm import step_rank_functions as rank_functions
from tests.engines.vllm.test_multi_step import ENDS, assert_same_bits
from tests.spmd import Ranks

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.skipif(platform().name != "cpu", reason="on a GPU vLLM's own sampler is used"),
]

ROWS, TOKENS = 5, 70


@pytest.fixture(scope="module")
def folder(tiny: GetModel) -> Path:
    return tiny(vocab=70, layers=2, positions=512)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0, max_tokens=TOKENS),
        Sampling(0.0, max_tokens=TOKENS),
        Sampling(0.7, top_k=10, top_p=0.8, max_tokens=TOKENS, stop_token_ids=ENDS, vocabulary=44),
    ],
    ids=["sampled", "likeliest", "of few"],
)
def test_tokens_and_log_probs_are_vllms_bit_for_bit(sampling: Sampling, folder: Path, ranks1: Ranks) -> None:
    prompts = Ragged.of([np.arange(2, 9 + row) for row in range(ROWS)])
    seeds = [2**62 + row for row in range(ROWS)]
    [((ours, _), (theirs, _))] = ranks1.run(rank_functions.sampled_twice, folder, prompts, sampling, seeds)
    assert_same_bits(ours, theirs)


def test_vllm_asks_a_generator_for_each_token_and_ours_for_many(folder: Path, ranks1: Ranks) -> None:
    """As long as vLLM does, ours is needed."""
    prompts, sampling = Ragged.of([np.arange(2, 9)] * ROWS), Sampling(1.0, max_tokens=TOKENS)
    [found] = ranks1.run(rank_functions.sampled_twice, folder, prompts, sampling, list(range(ROWS)))
    (_, ours), (_, theirs) = found
    assert ours == ROWS * 3  # of 32 numbers
    assert theirs == TOKENS * (ROWS + 1)
