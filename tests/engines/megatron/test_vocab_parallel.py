"""Log-probs and entropies from logits that are cut along the vocabulary, against log_softmax of whole ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hybridflow.parallel.layout import Layout
from tests.conftest import GetRanks
from tests.engines import rank_functions
from tests.spmd import Ranks

pytestmark = pytest.mark.ranks


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize("heated", [False, True])
@pytest.mark.parametrize("vocab", [64, 50, 32, 14])  # no padding, in the last part, all of the last part, and more
def test_values_and_gradients_are_those_of_log_softmax(
    ranks: GetRanks, tensor: int, heated: bool, vocab: int, chunk: int | None
) -> None:
    """9 tokens, each with a temperature of its own or all with none: in chunks of 2 the last is not full."""
    rng = np.random.default_rng(vocab)
    temperature = np.linspace(0.4, 1.6, 9, dtype=np.float32) if heated else None
    logits = rng.normal(0, 5, (9, 64)).astype(np.float32)
    logits[:, vocab:] = 1e4  # what stands in the padding must not matter
    logits[3] += 100.0  # would overflow without the largest taken off
    tokens, grads = rng.integers(0, vocab, 9), rng.normal(0, 1, (2, 9)).astype(np.float32)
    tokens[:2] = 0, vocab - 1
    found = ranks(tensor).run(
        rank_functions.statistics, logits, tokens, grads, vocab, temperature, Layout(tensor), chunk
    )

    hidden = torch.from_numpy(logits).double().requires_grad_()
    weight = torch.eye(64, dtype=torch.float64, requires_grad=True)
    divisor = torch.from_numpy(temperature)[:, None] if temperature is not None else 1.0
    log_p = ((hidden @ weight.t())[:, :vocab] / divisor).log_softmax(-1)
    expected = log_p.gather(-1, torch.from_numpy(tokens)[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    torch.autograd.backward(expected, tuple(torch.from_numpy(grads).double()))
    for log_probs, entropy, *_ in found:
        np.testing.assert_allclose(log_probs, expected[0].detach(), atol=5e-5, rtol=2e-6)
        np.testing.assert_allclose(entropy, expected[1].detach(), atol=5e-5, rtol=2e-6)
    of_hidden = sum(part for *_, part, _ in found)
    np.testing.assert_allclose(of_hidden, hidden.grad, atol=2e-5)
    assert not of_hidden[:, vocab:].any()
    of_weight = np.concatenate([part for *_, part in found])
    np.testing.assert_allclose(of_weight, weight.grad, atol=2e-5 * float(np.abs(logits).max()))
    assert not of_weight[vocab:].any()


def test_blocks_of_a_chunk_change_no_bit(ranks: GetRanks) -> None:
    """Also of unequal size: 9 tokens in chunks of 5, and these in blocks of 2."""
    rng = np.random.default_rng(0)
    given = rng.normal(0, 5, (9, 64)).astype(np.float32), rng.integers(0, 50, 9), rng.normal(0, 1, (2, 9))
    told = [*given[:2], given[2].astype(np.float32), 50, np.linspace(0.4, 1.6, 9, dtype=np.float32), Layout()]
    whole, cut = (ranks(1).run(rank_functions.statistics, *told, 5, block)[0] for block in (0, 2))
    for one, same in zip(whole, cut, strict=True):
        assert one.tobytes() == same.tobytes()


@pytest.mark.parametrize("learns", [False, True])
def test_there_are_at_most_a_chunks_logits_and_what_is_made_of_a_block_of_them(learns: bool, ranks: GetRanks) -> None:
    """Where a block is a whole chunk, as on a GPU: these and as much again, while the next chunk's are made too."""
    [chunks] = ranks(1).run(rank_functions.chunks_at_once, learns)
    assert 2 <= chunks < 2.2


def test_no_token_is_no_trouble(ranks2: Ranks) -> None:
    nothing = np.zeros((0, 64), np.float32), np.zeros(0, np.int64), np.zeros((2, 0), np.float32)
    for log_probs, entropy, gradient, of_weight in ranks2.run(rank_functions.statistics, *nothing, 50, None, Layout(2)):
        assert (len(log_probs), len(entropy), gradient.shape) == (0, 0, (0, 64))
        assert not of_weight.any()
