"""Pairs of responses as rows: of each pair the chosen response, then the rejected one."""

from __future__ import annotations

import numpy as np

from hybridflow.batch import Batch, Ragged


def sides(pairs: Batch) -> Batch:
    """[P] pairs as [2 P] rows: of each pair the chosen response, then the rejected one."""
    chosen, rejected = pairs.ragged("response_ids"), pairs.ragged("rejected_ids")
    responses = [side for pair in zip(chosen, rejected, strict=True) for side in pair]
    prompts = pairs.ragged("prompt_ids").select(np.repeat(np.arange(len(pairs)), 2))
    return Batch(prompt_ids=prompts, response_ids=Ragged.of(responses, np.int64))
