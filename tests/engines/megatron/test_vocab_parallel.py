"""Log-probs and entropies from logits that are cut along the vocabulary, against log_softmax of whole ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hybridflow.parallel.layout import Layout
from tests.conftest import GetRanks
from tests.engines import play
from tests.spmd import Ranks


@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("vocab", [64, 50, 32, 14])  # no padding, in the last part, all of the last part, and more
def test_values_and_gradients_are_those_of_log_softmax(
    ranks: GetRanks, tensor: int, temperature: float, vocab: int
) -> None:
    rng = np.random.default_rng(vocab)
    logits = rng.normal(0, 5, (9, 64)).astype(np.float32)
    logits[:, vocab:] = 1e4  # what stands in the padding must not matter
    logits[3] += 100.0  # would overflow without the largest taken off
    tokens, grads = rng.integers(0, vocab, 9), rng.normal(0, 1, (2, 9)).astype(np.float32)
    tokens[:2] = 0, vocab - 1
    found = ranks(tensor).run(play.statistics, logits, tokens, grads, vocab, temperature, Layout(tensor))

    whole = torch.from_numpy(logits).double().requires_grad_()
    log_p = (whole[:, :vocab] / temperature).log_softmax(-1)
    expected = log_p.gather(-1, torch.from_numpy(tokens)[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    torch.autograd.backward(expected, tuple(torch.from_numpy(grads).double()))
    for log_probs, entropy, _ in found:
        np.testing.assert_allclose(log_probs, expected[0].detach(), atol=5e-5, rtol=2e-6)
        np.testing.assert_allclose(entropy, expected[1].detach(), atol=5e-5, rtol=2e-6)
    gradient = np.concatenate([part for *_, part in found], -1)
    np.testing.assert_allclose(gradient, whole.grad, atol=2e-5)
    assert not gradient[:, vocab:].any()


def test_no_token_is_no_trouble(ranks2: Ranks) -> None:
    nothing = np.zeros((0, 64), np.float32), np.zeros(0, np.int64), np.zeros((2, 0), np.float32)
    for log_probs, entropy, gradient in ranks2.run(play.statistics, *nothing, 50, 1.0, Layout(2)):
        assert (len(log_probs), len(entropy), gradient.shape) == (0, 0, (0, 32))
