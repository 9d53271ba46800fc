"""The stretch of rotary frequencies is transformers'."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from hybridflow.models.rope import Llama3Rope


def build_frequencies(base: float, dim: int) -> torch.Tensor:
    return 1.0 / base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)


@pytest.mark.parametrize(("factor", "original"), [(8.0, 8192), (32.0, 8192), (3.0, 32)])
def test_frequencies_are_those_of_transformers(factor: float, original: int) -> None:
    rope = Llama3Rope(factor, 1.0, 4.0, original)
    config = LlamaConfig(
        head_dim=128, rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, **vars(rope)},
        max_position_embeddings=131072,
    )  # fmt: skip
    expected, scale = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    found, plain = rope.stretch(build_frequencies(5e5, 128)), build_frequencies(5e5, 128)
    assert scale == 1.0
    torch.testing.assert_close(found, expected, rtol=4e-7, atol=0)
    kept, divided = found == plain, torch.isclose(found, plain / factor, rtol=1e-6, atol=0)
    assert kept.any() and divided.any() and not (kept | divided).all()


@given(st.floats(1.5, 64), st.floats(0.5, 4), st.floats(1.1, 8), st.integers(16, 100_000), st.floats(1e3, 1e7))
def test_a_frequency_is_never_raised_nor_divided_by_more_than_the_factor(
    factor: float, low: float, ratio: float, original: int, base: float
) -> None:
    plain = build_frequencies(base, 64)
    found = Llama3Rope(factor, low, low * ratio, original).stretch(plain)
    assert (found <= plain * (1 + 1e-6)).all() and (found * factor >= plain * (1 - 1e-6)).all()
    assert (found.diff() <= 0).all()
