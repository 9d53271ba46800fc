"""Pairs of responses as rows: of each pair the chosen response, then the rejected one."""

from __future__ import annotations

import numpy as np

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.loss_mask import LOSS_MASK, learned_rows

REJECTED_LOSS_MASK = "rejected_loss_mask"
"""`loss_mask` is that of the chosen response. A side without its mask is learned from whole."""


def sides(pairs: Batch) -> Batch:
    """Lay [P] pairs out as [2 P] rows: of each pair the chosen response, then the rejected one.

    They are samples of one prompt, which other pairs may have too.
    """
    prompts = pairs.ragged("prompt_ids").select(np.repeat(np.arange(len(pairs)), 2))
    chosen = pairs.ragged("response_ids")
    rejected = pairs.ragged("rejected_ids")
    group_id = pairs.dense("group_id") if "group_id" in pairs else np.arange(len(pairs))
    both_sides = Batch(
        prompt_ids=prompts,
        response_ids=_in_turn(chosen, rejected, dtype=np.int64),
        group_id=np.repeat(group_id, 2),
    )
    if LOSS_MASK not in pairs and REJECTED_LOSS_MASK not in pairs:
        return both_sides
    masks = (_mask(pairs, name, of) for name, of in ((LOSS_MASK, chosen), (REJECTED_LOSS_MASK, rejected)))
    # Not as whole numbers: what is neither 0 nor 1 is refused, and must not become a 0 first.
    return both_sides | Batch(loss_mask=_in_turn(*masks, dtype=np.float32))


def learnable_pairs(pairs: Batch) -> Batch:
    """Select the pairs with a token to learn from on both sides; all, the empty ones too, where there is no mask."""
    usable = learned_rows(sides(pairs)).reshape(-1, 2).all(axis=1)
    return pairs if usable.all() else pairs.select(np.flatnonzero(usable))


def _in_turn(chosen: Ragged, rejected: Ragged, *, dtype: type) -> Ragged:
    return Ragged.of([side for pair in zip(chosen, rejected, strict=True) for side in pair], dtype)


def _mask(pairs: Batch, name: str, responses: Ragged) -> Ragged:
    return pairs.ragged(name) if name in pairs else responses.like(np.ones_like(responses.values))
