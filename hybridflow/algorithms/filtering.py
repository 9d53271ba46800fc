"""Which rows of a rollout are worth learning from."""

from __future__ import annotations

import numpy as np

from hybridflow.batch import BatchRef
from hybridflow.config.schema import Algorithm as Settings
from hybridflow.losses.filters import FilterInputs, rollout_filters
from hybridflow.losses.options import with_options


def kept_rows(rollout: BatchRef, config: Settings) -> np.ndarray:
    """[K] int64: the numbers of the rows that `rollout_filter` keeps.

    Waits for the rewards; they and `truncated`, two small columns, come here.
    """
    known = rollout.keep(["rewards", "truncated"]).get()
    inputs = FilterInputs(
        rewards=known.dense("rewards"),
        group_id=known.dense("group_id"),
        lengths=rollout.lengths("response_ids"),
        truncated=known.dense("truncated"),
    )
    part = config.rollout_filter
    return with_options(rollout_filters, part.name, part.options)(inputs)
