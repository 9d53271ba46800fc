"""A second engine behind the seam says what Megatron does: transformers in one process, as a user would register it."""

from __future__ import annotations

import numpy as np
import pytest

from hybridflow.models import Head
from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel, GetRanks
from tests.engines import reference, second_engine_rank_functions

pytestmark = pytest.mark.ranks


@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize("data", [1, 2])
def test_it_scores_and_learns_as_megatron_does(head: Head, data: int, ranks: GetRanks, tiny: GetModel) -> None:
    folder, rows = tiny(vocab=70), reference.rows(70)
    mask = rows.ragged("response_ids").like((np.arange(27) % 3 > 0).astype(np.int64))
    for batch in (rows, rows | type(rows)(loss_mask=mask)):
        for found in ranks(data).run(second_engine_rank_functions.compared, folder, Layout(data=data), batch, head):
            np.testing.assert_allclose(*found.before, atol=1e-5, rtol=0)
            np.testing.assert_allclose(*found.after, atol=1e-4, rtol=0)
            assert np.abs(found.after[0] - found.before[0]).max() > 1e-3
            assert found.norms[1] == pytest.approx(found.norms[0], rel=1e-4)
