"""Scalar heads of a model in bfloat16: what they say is float32, and an exported head says the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel, GetRanks
from tests.engines import rank_functions, reference

pytestmark = pytest.mark.ranks


@pytest.mark.parametrize(
    ("layout", "sequence"), [(Layout(), False), (Layout(2), True), (Layout(1, 2), False)], ids=["one", "tp2", "pp2"]
)
def test_values_and_scores_in_bf16_are_not_rounded(
    ranks: GetRanks, tiny: GetModel, layout: Layout, sequence: bool, tmp_path: Path
) -> None:
    folder, rows = tiny(vocab=70), reference.rows(70)
    found = ranks(layout.size).run(rank_functions.heads, folder, layout, rows, tmp_path / "out", sequence=sequence)
    last = [said for said in found if said is not None]
    assert len(last) == layout.tensor
    for values, scores, again in last:
        for numbers in (values, scores):
            exact = torch.from_numpy(numbers)
            rounded = exact.bfloat16().float() == exact
            assert numbers.dtype == np.float32 and len(numbers) > 5
            assert rounded.float().mean() < 0.2, "a float32 is one in 65,536 times a bfloat16"
        assert np.array_equal(scores, again)
