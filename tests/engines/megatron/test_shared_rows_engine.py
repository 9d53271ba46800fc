"""An engine on rows that share prefixes gives what it gives for the same rows that do not: all of it within 1e-5."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.shared_prefix import row_tokens
from hybridflow.models import Head
from hybridflow.parallel.layout import Layout
from tests.batch.test_shared_prefix import BRANCHES, build_tree
from tests.conftest import GetModel, GetRanks
from tests.engines import reference
from tests.engines.megatron import shared_rank_functions
from tests.spmd import Ranks

pytestmark = pytest.mark.ranks

VOCAB = 70
GROUPS = st.lists(
    st.tuples(st.integers(1, 20), st.lists(st.integers(0, 8), min_size=1, max_size=5)), min_size=1, max_size=4
)


def build_groups(groups: list[tuple[int, list[int]]], seed: int) -> Batch:
    """Samples of prompts: of each the prompt's length, and those of the responses."""
    rng = np.random.default_rng(seed)
    prompts, responses, group_id = [], [], []
    for group, (length, samples) in enumerate(groups):
        prompt = rng.integers(0, VOCAB, length)
        prompts += [prompt] * len(samples)
        responses += [rng.integers(0, VOCAB, sample) for sample in samples]
        group_id += [group] * len(samples)
    return Batch(
        prompt_ids=Ragged.of(prompts, np.int64),
        response_ids=Ragged.of(responses, np.int64),
        group_id=np.array(group_id),
    )


def with_weights(rows: Batch, seed: int, *, masked: bool) -> Batch:
    """What the loss reads beside."""
    rng = np.random.default_rng(seed)
    responses = rows.ragged("response_ids")
    weights = rng.normal(1.0, 0.5, len(responses.values)).astype(np.float32)
    rows |= Batch(weights=responses.like(weights))
    return rows | Batch(loss_mask=responses.like(rng.integers(0, 2, len(weights)))) if masked else rows


@pytest.mark.parametrize("head", list(Head))
def test_every_kind_of_model_is_exact(head: Head, ranks1: Ranks, tiny: GetModel) -> None:
    folder = tiny(architecture="llama", vocab=VOCAB)
    rows = reference.shared_rows(VOCAB)
    for budget in (20, 10**6):
        [(error, name, tokens, all_tokens)] = ranks1.run(
            shared_rank_functions.compare, folder, Layout(), rows, budget=budget, head=head
        )
        assert error < 1e-5, name
        assert tokens < all_tokens == row_tokens(rows).lengths.sum()


def test_bf16_is_off_by_its_rounding(ranks1: Ranks, tiny: GetModel) -> None:
    folder, rows = tiny(architecture="llama", vocab=VOCAB), reference.shared_rows(VOCAB)
    [(error, name, _, _)] = ranks1.run(
        shared_rank_functions.compare, folder, Layout(), rows, budget=10**6, dtype=torch.bfloat16
    )
    assert 0 < error < 0.03, name


def test_rows_of_any_kind_are_exact(ranks1: Ranks, tiny: GetModel) -> None:
    """Groups of samples and deeper trees, under masks, with budgets that cut them, in pairs that stay together."""
    folder = tiny(architecture="qwen3", vocab=VOCAB, tied=True)

    @settings(max_examples=20)
    @given(
        groups=GROUPS,
        branches=BRANCHES,
        deep=st.booleans(),
        masked=st.booleans(),
        budget=st.integers(1, 120),
        rows_per_unit=st.sampled_from([1, 2]),
    )
    def check(
        groups: list[tuple[int, list[int]]], branches: list[tuple[int, float, list[int], list[int]]], deep: bool,
        masked: bool, budget: int, rows_per_unit: int,
    ) -> None:  # fmt: skip
        rows = build_tree(branches)[0] if deep else build_groups(groups, budget)
        rows = with_weights(rows.slice(0, len(rows) - len(rows) % rows_per_unit), budget, masked=masked)
        options = {"budget": budget, "rows_per_unit": rows_per_unit}
        if len(rows):
            [(error, name, tokens, all_tokens)] = ranks1.run(
                shared_rank_functions.compare, folder, Layout(), rows, **options
            )
            assert error < 1e-5, name
            assert tokens <= all_tokens

    check()


@pytest.mark.parametrize("head", [Head.value, Head.reward])
@pytest.mark.parametrize("layout", [Layout(2), Layout(1, 2), Layout(2, 2)], ids=["tp2", "pp2", "tp2-pp2"])
@pytest.mark.slow
def test_every_kind_of_model_is_exact_on_every_layout(
    head: Head, layout: Layout, ranks: GetRanks, tiny: GetModel
) -> None:
    folder, rows = tiny(architecture="llama", vocab=VOCAB), reference.shared_rows(VOCAB)
    for found in ranks(layout.size).run(shared_rank_functions.compare, folder, layout, rows, budget=20, head=head):
        assert found[0] < 1e-5, found[1]
