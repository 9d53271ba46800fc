"""Rows of numbers of which no other is at least as good in all of them."""

from __future__ import annotations

import numpy as np

BLOCK = 256
BEFORE = np.tri(BLOCK, k=-1, dtype=bool)


def undominated(rows: np.ndarray) -> np.ndarray:
    """Return the places of the rows, [rows, numbers], that no other row is at most as large as in every number.

    Of equal rows the first stays. They are in lexicographic order.
    """
    rows = rows[:, np.concatenate([[True], np.ptp(rows[:, 1:], axis=0) > 0])] if len(rows) else rows
    order = np.lexsort(rows.T[::-1])  # a row can only be dominated by one before it, whose first number is no larger
    kept = np.empty((0, rows.shape[1]))
    places: list[np.ndarray] = []
    for start in range(0, len(order), BLOCK):
        mine = order[start : start + BLOCK]
        if len(kept):
            mine = mine[~_dominated(rows[mine], kept, np.ones((len(mine), len(kept)), bool))]
        block = rows[mine]
        mine = mine[~_dominated(block, block, BEFORE[: len(mine), : len(mine)].copy())]
        places.append(mine)
        kept = np.concatenate([kept, rows[mine]])
    return np.concatenate(places) if places else order


def _dominated(rows: np.ndarray, by: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Tell which rows one of the others is at most as large as.

    Args:
        before: [rows, by] which of the others come before which row; it is written to.
    """
    for column in range(1, rows.shape[1]):
        before &= by[None, :, column] <= rows[:, None, column]
    return np.asarray(before.any(axis=1))
