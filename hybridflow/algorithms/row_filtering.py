"""Filtering: rows of a rollout that are worth learning from."""

from __future__ import annotations

import numpy as np

from hybridflow.batch import BatchRef
from hybridflow.batch.columns import row_numbers
from hybridflow.batch.loss_mask import LOSS_MASK
from hybridflow.config.schema import AlgorithmConfig as Settings
from hybridflow.losses.options import with_options
from hybridflow.losses.rollout_filters import FilterInputs, rollout_filters
from hybridflow.tasks.grades import GRADES


def kept_rows(rollout: BatchRef, config: Settings) -> np.ndarray:
    """Find the rows that `rollout_filter` keeps, of those that can be learned from: [K] int64 row numbers.

    A filter does not see the others: a group is judged by the samples that have a grade and a token to learn from.
    Waits for the rewards. What it reads is in the reports of the ranks; no rows come here.
    """
    usable = np.ones(len(rollout), dtype=bool)
    for name in (grade for grade in GRADES if grade in rollout.columns):
        usable &= np.isfinite(rollout.numbers(name))
    if LOSS_MASK in rollout.columns:
        usable &= rollout.numbers(LOSS_MASK) > 0
    rows = np.flatnonzero(usable)
    marks = rollout.driver_columns
    group = marks["group_id"] if "group_id" in marks else np.arange(len(rollout))  # each row alone
    inputs = FilterInputs(
        rewards=rollout.numbers("rewards")[rows],
        group_id=group[rows],
        lengths=rollout.lengths("response_ids")[rows],
        truncated=rollout.numbers("truncated")[rows].astype(bool),
    )
    part = config.rollout_filter
    stay = with_options(rollout_filters, part.name, part.options)(inputs)
    kept: np.ndarray = rows[row_numbers(stay, len(rows))]
    return kept
