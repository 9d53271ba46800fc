"""Rollout filters: which rows are worth learning from. They read small columns only and need no torch.

A filter is a function `(rows, **options) -> [K] int64`, the numbers of the rows that stay, in their order, in the
registry `rollout_filters`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hybridflow.registry import Registry


@dataclass(frozen=True)
class FilterInputs:
    """Inputs of a rollout filter.

    Attributes:
        rewards: [R] float.
        group_id: [R] int64, equal for samples of one prompt.
        lengths: [R] int64, tokens of each response.
        truncated: [R] bool: the response reached the limit before anything ended it.
    """

    rewards: np.ndarray
    group_id: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray


RolloutFilter = Callable[..., np.ndarray]
rollout_filters: Registry[RolloutFilter] = Registry("rollout filter", of=Callable)


@rollout_filters.register("unequal_groups")
def unequal_groups(rows: FilterInputs) -> np.ndarray:
    """Drop groups whose rewards are all equal: their advantages are 0, and they only dilute the mean.

    Source: DAPO's dynamic sampling, arXiv 2503.14476, section 3.2, equation 11 (there for right and wrong answers). A
    group of one is dropped too.
    """
    group, unequal, _ = compared_groups(rows.rewards, rows.group_id)
    return np.flatnonzero(unequal[group])


@rollout_filters.register("overlong")
def overlong(rows: FilterInputs) -> np.ndarray:
    """Drop responses that were truncated at the limit: whether they would have been right is not known.

    Source: DAPO's overlong filtering, arXiv 2503.14476, section 3.4.
    """
    return np.flatnonzero(~rows.truncated)


def compared_groups(rewards: np.ndarray, group_id: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare the rewards of each group.

    Args:
        rewards: [R] finite.
        group_id: [R] int64.

    Returns:
        [R] int64, the number of each row's group; [G] bool, whether the group's rewards differ; [G] int64, its rows.
    """
    _, group, sizes = np.unique(group_id, return_inverse=True, return_counts=True)
    lowest = np.full(len(sizes), np.inf)
    highest = np.full(len(sizes), -np.inf)
    np.minimum.at(lowest, group, rewards)
    np.maximum.at(highest, group, rewards)
    return group, highest > lowest, sizes
