"""Pairs as rows: what their sides share, and masks that are none."""

from __future__ import annotations

import numpy as np
import pytest

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.shared_prefix import shared_prefixes
from hybridflow.workers.preference_pairs import learnable_pairs, sides

TOKENS = {
    "prompt_ids": Ragged.of([[7], [7]], np.int64),
    "response_ids": Ragged.of([[1, 2], [3]], np.int64),
    "rejected_ids": Ragged.of([[4], [5, 6]], np.int64),
}


@pytest.mark.parametrize(
    ("mask", "told"),
    [([[0.5, 0], [1]], "loss_mask has 0.5"), ([[1], [1]], "loss_mask of row 0 has 1 entries and its response 2")],
)
def test_a_wrong_mask_of_a_pair_is_refused(mask: list[list[float]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        learnable_pairs(Batch(**TOKENS, loss_mask=Ragged.of(mask, np.float32)))


def test_pairs_with_a_learned_token_on_both_sides_stay() -> None:
    mask = Ragged.of([[True, False], [False]], bool)
    assert len(learnable_pairs(Batch(**TOKENS, loss_mask=mask))) == 1
    assert len(learnable_pairs(Batch(**TOKENS))) == 2


def test_both_sides_share_their_prompt_and_pairs_of_one_group_too() -> None:
    """Two prompts that are alike by chance are two groups, unless the pairs say that they are one."""
    assert shared_prefixes(sides(Batch(**TOKENS))).tolist() == [[-1, 0], [0, 1], [-1, 0], [2, 1]]
    together = sides(Batch(**TOKENS, group_id=np.array([4, 4])))
    assert shared_prefixes(together).tolist() == [[-1, 0], [0, 1], [0, 1], [0, 1]]
