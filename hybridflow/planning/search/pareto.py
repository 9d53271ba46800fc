"""Rows of numbers of which no other is at least as good in all of them."""

from __future__ import annotations

import numpy as np

BLOCK = 256


def undominated(rows: np.ndarray) -> np.ndarray:
    """Return the places of the rows, [rows, numbers], that no other row is at most as large as in every number.

    Of equal rows the first stays. They are in lexicographic order.
    """
    order = np.lexsort(rows.T[::-1])  # a row can only be dominated by one before it
    kept = np.empty((0, rows.shape[1]))
    places: list[np.ndarray] = []
    for start in range(0, len(order), BLOCK):
        mine = order[start : start + BLOCK]
        mine = mine[~_dominated(rows[mine], kept)]
        block = rows[mine]
        beaten = (block[None, :, :] <= block[:, None, :]).all(axis=2)
        mine = mine[~np.tril(beaten, -1).any(axis=1)]
        places.append(mine)
        kept = np.concatenate([kept, rows[mine]])
    return np.concatenate(places) if places else order


def _dominated(rows: np.ndarray, by: np.ndarray) -> np.ndarray:
    if not len(by):
        return np.zeros(len(rows), bool)
    found = np.ones((len(rows), len(by)), bool)
    for column in range(rows.shape[1]):
        found &= by[None, :, column] <= rows[:, None, column]
    return np.asarray(found.any(axis=1))
