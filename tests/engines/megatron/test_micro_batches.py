"""Packing: every token once, within the budget, next to its row's tokens only, and back in the rows' order.

Rows here share nothing; `test_shared_rows` has those that do.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Batch, Ragged
from hybridflow.engines.megatron.micro_batches import WASTE, micro_batches, packed_rows

CPU = torch.device("cpu")


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Rows in which no token comes twice, so that each can be recognized."""
    lengths = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 12)), min_size=1, max_size=12))
    numbers = iter(range(10**6))
    rows = [[[next(numbers) for _ in range(n)] for n in row] for row in lengths]
    return Batch(
        prompt_ids=Ragged.of([prompt for prompt, _ in rows]), response_ids=Ragged.of([response for _, response in rows])
    )


@given(batches(), st.integers(1, 60))
def test_every_row_is_in_one_micro_batch_within_the_budget(batch: Batch, budget: int) -> None:
    micros = micro_batches(batch, budget, CPU)
    assert sorted(np.concatenate([m.rows for m in micros]).tolist()) == list(range(len(batch)))
    for m in micros:
        assert m.tokens.shape[1] <= budget or len(m.rows) == 1
    # Longest first, each as full as its next row allows: two neighbors never fit into one.
    for a, b in pairwise(micros):
        first = b.rows[0]
        assert a.tokens.shape[1] + sum(len(batch.ragged(c)[first]) for c in ("prompt_ids", "response_ids")) > budget


@given(batches(), st.integers(1, 60))
def test_tokens_positions_and_targets_are_the_rows(batch: Batch, budget: int) -> None:
    prompts, responses = batch.ragged("prompt_ids"), batch.ragged("response_ids")
    for m in micro_batches(batch, budget, CPU):
        whole = [np.concatenate([prompts[row], responses[row]]) for row in m.rows]
        assert m.tokens[0].tolist() == np.concatenate(whole).tolist()
        assert m.positions.shape == (3, 1, m.tokens.shape[1])
        for axis in m.positions[:, 0]:
            assert axis.tolist() == [place for row in whole for place in range(len(row))]
        assert m.lengths.tolist() == [len(responses[row]) for row in m.rows]
        assert m.targets.tolist() == [token for row in m.rows for token in responses[row].tolist()]
        # No token comes twice, and they count up in a row: what logit_positions a token is the one before it.
        assert m.tokens[0][m.logit_positions].tolist() == [token - 1 for token in m.targets.tolist()]


@given(batches(), st.integers(1, 60), st.data())
def test_only_learned_tokens_are_targets(batch: Batch, budget: int, data: st.DataObject) -> None:
    """They are predicted from what is before them, masked or not: tokens are packed as without a mask."""
    responses = batch.ragged("response_ids")
    tokens = len(responses.values)
    mask = responses.like(np.array(data.draw(st.lists(st.integers(0, 1), min_size=tokens, max_size=tokens)), np.int64))
    plain = micro_batches(batch, budget, CPU)
    for m, other in zip(micro_batches(batch | Batch(loss_mask=mask), budget, CPU), plain, strict=True):
        assert torch.equal(m.tokens, other.tokens) and m.rows.tolist() == other.rows.tolist()
        learned = [responses[row][mask[row] == 1].tolist() for row in m.rows]
        assert m.targets.tolist() == [token for row in learned for token in row]
        assert m.lengths.tolist() == list(map(len, learned))
        assert m.tokens[0][m.logit_positions].tolist() == [token - 1 for token in m.targets.tolist()]
        assert m.learned is not None and m.learned.tolist() == [bool(one) for row in m.rows for one in mask[row]]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_attention_sees_every_token_once_and_little_padding(lengths: list[int]) -> None:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    packed = packed_rows(Ragged(np.arange(starts[-1]), starts), np.zeros(len(lengths), dtype=np.int64), CPU)
    assert packed.key_tokens is None and packed.cu_seqlens_kv.tolist() == packed.cu_seqlens_q.tolist() == [*starts]
    row_of, done = np.repeat(np.arange(len(lengths)), lengths), []
    for bucket in packed.buckets:
        tokens, real = bucket.queries, bucket.real
        assert bucket.keys is None and bucket.mask is None
        assert tokens.numel() <= WASTE * len(real)
        flat = tokens.flatten()[real]
        done += flat.tolist()
        for line in tokens.numpy():  # a row is in one line, from its first token
            row = row_of[line[0]]
            n = lengths[row]
            assert line[:n].tolist() == list(range(starts[row], starts[row] + n))
        in_line = (real % tokens.shape[1]).numpy()
        assert [int(place) for place in in_line] == [int(t - starts[row_of[t]]) for t in flat.tolist()]
    assert sorted(done) == list(range(sum(lengths)))
    assert packed.order is not None and torch.tensor(done)[packed.order].tolist() == list(range(sum(lengths)))


def test_rows_of_one_length_share_a_bucket() -> None:
    starts = np.arange(0, 31, 5)
    [bucket] = packed_rows(Ragged(np.arange(30), starts), np.zeros(6, dtype=np.int64), CPU).buckets
    assert bucket.queries.shape == (6, 5) and len(bucket.real) == 30


def test_an_empty_prompt_is_refused() -> None:
    batch = Batch(prompt_ids=Ragged.of([[1], []]), response_ids=Ragged.of([[1], [2]]))
    with pytest.raises(ValueError, match="row 1 has an empty prompt"):
        micro_batches(batch, 8, CPU)


@given(batches(), st.integers(1, 60))
def test_rows_that_stay_together_are_never_parted(batch: Batch, budget: int) -> None:
    pairs = batch.select(np.repeat(np.arange(len(batch)), 2))
    whole = 2 * (batch.lengths("prompt_ids") + batch.lengths("response_ids"))
    micros = micro_batches(pairs, budget, CPU, rows_per_unit=2)
    assert sorted(row for m in micros for row in m.rows.tolist()) == list(range(len(pairs)))
    for m in micros:
        assert (m.rows[::2] % 2 == 0).all() and (m.rows[1::2] == m.rows[::2] + 1).all()
        assert m.tokens.shape[1] <= budget or len(m.rows) == 2
        assert m.tokens.shape[1] == whole[m.rows[::2] // 2].sum()


@given(batches(), st.integers(1, 60))
def test_ends_are_the_last_tokens_of_the_rows(batch: Batch, budget: int) -> None:
    prompts, responses = batch.ragged("prompt_ids"), batch.ragged("response_ids")
    for m in micro_batches(batch, budget, CPU):
        last = [np.concatenate([prompts[row], responses[row]])[-1] for row in m.rows]
        assert m.tokens[0][m.last_positions].tolist() == last
        assert m.positions[0, 0][m.last_positions].tolist() == [
            len(prompts[row]) + len(responses[row]) - 1 for row in m.rows
        ]


@given(batches(), st.integers(1, 60), st.sampled_from([2, 3, 4]))
def test_tokens_are_filled_up_by_a_row_of_their_own(batch: Batch, budget: int, pad_to_multiple_of: int) -> None:
    """As sequence parallelism needs it; nothing else is different."""
    for m, plain in zip(
        micro_batches(batch, budget, CPU, pad_to_multiple_of=pad_to_multiple_of),
        micro_batches(batch, budget, CPU),
        strict=True,
    ):
        total, true = m.tokens.shape[1], plain.tokens.shape[1]
        assert total % pad_to_multiple_of == 0 and 0 <= total - true < pad_to_multiple_of
        assert torch.equal(m.tokens[:, :true], plain.tokens) and not m.tokens[:, true:].any()
        assert torch.equal(m.positions[..., :true], plain.positions)
        assert m.positions[0, 0, true:].tolist() == list(range(total - true))
        assert np.diff(m.packed.cu_seqlens_q)[: len(m.rows)].tolist() == np.diff(plain.packed.cu_seqlens_q).tolist()
        for name in ("lengths", "logit_positions", "targets", "last_positions"):
            assert torch.equal(getattr(m, name), getattr(plain, name)), name
