"""Lengths as distributions."""

from __future__ import annotations

import pytest

from hybridflow.planning.lengths import Lengths


def test_quantiles_are_sorted_and_drawn_from() -> None:
    lengths = Lengths.of([30, 10, 20])
    assert (lengths.quantiles, lengths.mean, lengths.max) == ((10, 20, 30), 20, 30)
    drawn = lengths.drawn(3_000, seed=1)
    assert set(drawn) == {10, 20, 30}
    assert drawn.mean() == pytest.approx(20, abs=1)


@pytest.mark.parametrize("tokens", [[], [3, -1]])
def test_lengths_that_are_none(tokens: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one was expected"):
        Lengths.of(tokens)
