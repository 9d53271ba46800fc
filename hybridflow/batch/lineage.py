"""Lineage of rows: where they come from. It stays on the controller: no call carries it.

A lineage has, by name, [R] int64: `place`, the place that a row's prompt has in the order in which the run draws them
(-1: nobody knows), and `kin`, equal for rows of one group and for no others, whatever numbers their groups have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np

Lineage = Mapping[str, np.ndarray]
PLACE = "place"
KIN = "kin"
FAMILY_BITS = 32  # a `kin` is the number of its family, one `repeat`, before so many bits for the group
_families = count(1)  # 0 has the groups that somebody else has numbered


def new_kin(groups: np.ndarray) -> np.ndarray:
    """Give rows in these groups, which are nobody else's, their `kin`, [R]."""
    return (next(_families) << FAMILY_BITS) + groups


def joined(parts: Sequence[tuple[int, Lineage, Mapping[str, np.ndarray]]]) -> dict[str, np.ndarray]:
    """Join the lineage of rows end to end, from each part's rows, lineage and marks."""
    names = {name for _, lineage, _ in parts for name in lineage}
    return {
        name: np.concatenate([_known(name, rows, lineage, marks) for rows, lineage, marks in parts])
        for name in sorted(names)
    }


def _known(name: str, rows: int, lineage: Lineage, marks: Mapping[str, np.ndarray]) -> np.ndarray:
    if name in lineage:
        return lineage[name]
    if name == KIN and "group_id" in marks:
        return marks["group_id"]
    return np.full(rows, -1, dtype=np.int64)


def distinct_groups(groups: np.ndarray, kin: np.ndarray) -> np.ndarray:
    """Return [R] group numbers of rows from several places: unchanged where each is the number of one group, else anew.

    Then they are 0, 1, … in the order of the groups' first rows.
    """
    numbers, number = np.unique(groups, return_inverse=True)
    families, first, family = np.unique(kin, return_index=True, return_inverse=True)
    pairs = len(np.unique(number * len(families) + family))
    if pairs == len(numbers) == len(families):
        return groups
    anew = np.empty(len(families), dtype=np.int64)
    anew[np.argsort(first)] = np.arange(len(families))
    return anew[family]
