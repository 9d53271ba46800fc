"""From a training pool to a rollout pool: what vLLM says after a step is what transformers says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel, GetRanks, starting_ranks
from tests.engines import reference
from tests.engines.vllm import pool_rank_functions as rank_functions
from tests.engines.vllm.test_transitions import VOCAB, assert_said, prompts

pytestmark = [pytest.mark.ranks, pytest.mark.usefixtures("one_vllm_a_process")]


def test_after_a_step_generation_has_the_new_weights(ranks: GetRanks, tiny: GetModel, tmp_path: Path) -> None:
    """Two stages, tied embeddings and a padded vocabulary, to one rank."""
    folder, asked, rows = tiny(vocab=VOCAB, tied=True, kv_heads=4), prompts(1)[0], reference.rows(VOCAB)
    places = (folder, tmp_path / "store", Layout(1, 2), Layout(1))
    with starting_ranks() as others, ThreadPoolExecutor(2) as threads:
        given = threads.submit(ranks(2).run, rank_functions.give, *places, rows, tmp_path / "out")
        taken = threads.submit(others(1).run, rank_functions.take, *places, asked)
        given.result()
        [(before, after)] = taken.result()
    assert_said(after, asked, tmp_path / "out")
    assert before.tokens.values.tolist() != after.tokens.values.tolist(), "the step changed nothing"
