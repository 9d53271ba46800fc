"""Filtering: rows of a rollout that are worth learning from."""

from __future__ import annotations

import numpy as np

from hybridflow.batch import BatchRef
from hybridflow.batch.columns import row_numbers
from hybridflow.batch.loss_mask import LOSS_MASK
from hybridflow.config.schema import AlgorithmConfig as Settings
from hybridflow.losses.options import with_options
from hybridflow.losses.rollout_filters import FilterInputs, rollout_filters
from hybridflow.tasks.grades import GRADES, learnable


def kept_rows(rollout: BatchRef, config: Settings) -> np.ndarray:
    """Find the rows that `rollout_filter` keeps, of those that can be learned from: [K] int64 row numbers.

    A filter does not see the others: a group is judged by the samples that have a grade and a token to learn from.
    Waits for the rewards; they and `truncated`, small columns, come here, and so does `loss_mask` where there is one.
    """
    known = rollout.select_columns([*GRADES, "truncated", LOSS_MASK]).get()
    rows = np.flatnonzero(learnable(known))
    group = known.dense("group_id") if "group_id" in known else np.arange(len(rollout))  # each row alone
    inputs = FilterInputs(
        rewards=known.dense("rewards")[rows],
        group_id=group[rows],
        lengths=rollout.lengths("response_ids")[rows],
        truncated=known.dense("truncated")[rows],
    )
    part = config.rollout_filter
    stay = with_options(rollout_filters, part.name, part.options)(inputs)
    kept: np.ndarray = rows[row_numbers(stay, len(rows))]
    return kept
