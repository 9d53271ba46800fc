"""Parts of about the same weight, of rows or of groups that share some of theirs: the method of Karmarkar and Karp."""

from __future__ import annotations

import heapq

import numpy as np

PARTING_GAIN = 0.02  # that a group is parted for, at least, of the heaviest part: else its samples stay together


def partition(weights: np.ndarray, parts: int) -> list[np.ndarray]:
    """Divide rows so that the heaviest part is light.

    The largest differencing method (N. Karmarkar and R. Karp, "The differencing method of set partitioning", 1982):
    every row begins as a division of itself, and the two divisions whose parts differ most become one, the heaviest
    part of one joining the lightest of the other. The parts never differ by more than the largest weight, and the
    heaviest is at most 4/3 of what is possible (W. Michiels et al., "Performance ratios for the Karmarkar-Karp
    differencing method", 2003); for many rows it is far closer.

    Args:
        weights: [R] of any numbers ≥ 0, such as tokens.
        parts: how many; beyond R they are empty.

    Returns:
        For each part the numbers of its rows, int64 and ascending. Parts are in the order of their first rows, the
        empty ones last, so that the result depends on nothing but the arguments.

    Raises ValueError for weights that are negative or not finite, and for less than one part.
    """
    weights = np.asarray(weights)
    if parts < 1:
        raise ValueError(f"rows can be divided into 1 part or more, not {parts}")
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if weights.ndim != 1 or len(wrong):
        actual = f"row {wrong[0]} has {weights.flat[wrong[0]]}" if len(wrong) else f"an array of {list(weights.shape)}"
        raise ValueError(f"weights are numbers from 0 up, one a row; {actual}")
    part_of = _differencing(weights.astype(np.float64), parts)
    divided = [np.flatnonzero(part_of == part) for part in range(parts)]
    return sorted(divided, key=lambda rows: rows[0] if len(rows) else len(weights))


def partition_groups(shared: np.ndarray, own: np.ndarray, groups: np.ndarray, parts: int) -> list[np.ndarray]:
    """Divide rows so that the heaviest part is light, where rows of a group that are together share tokens.

    A part weighs its rows' own tokens and, once for each group that it has rows of, what these share. Whole groups are
    divided; if that leaves the heaviest part too heavy, halves of them, quarters, and at last rows. Pieces of a group
    cost its shared tokens once more, so they are taken only if the heaviest part is lighter by them, by
    `PARTING_GAIN`. No part is heavier than it would be if rows were divided one by one, but for that.

    Args:
        shared: [R] tokens of each row that are those of its group: its prompt's.
        own: [R] the others.
        groups: [R] equal for rows of one group.
        parts: as those of `partition`, whose result this is where each group has one row.

    Returns as `partition`.
    """
    number, place, sizes = _places_in_groups(groups)
    ideal = (_weight(shared, number) + own.sum()) / parts
    found: list[np.ndarray] = []
    lightest = np.inf
    pieces = 1
    while True:
        count = np.minimum(pieces, sizes[number])
        _, unit = np.unique(number * pieces + place * count // sizes[number], return_inverse=True)
        divided = _divided(shared, own, unit, parts)
        heaviest = max(_weight(shared[rows], number[rows]) + own[rows].sum() for rows in divided)
        if heaviest < lightest * (1 - PARTING_GAIN) or not found:
            found, lightest = divided, heaviest
        if lightest * (1 - PARTING_GAIN) <= ideal or pieces >= sizes.max(initial=1):
            return found
        pieces *= 2


def group_numbers(groups: np.ndarray) -> np.ndarray:
    """Return each row's group, [R], as 0, 1, … in the order of the groups' first rows, whatever their own numbers."""
    _, first, number = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def _places_in_groups(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each row's group, [R], in the order of first rows, its place in it, [R], and the sizes of groups, [G]."""
    number = group_numbers(groups)
    sizes = np.bincount(number)
    order = np.argsort(number, kind="stable")
    place = np.empty(len(groups), dtype=np.int64)
    place[order] = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return number, place, sizes


def _weight(shared: np.ndarray, number: np.ndarray) -> float:
    """Return what rows of these groups, [R], share, once for each group: the longest of what its rows do."""
    longest = np.zeros(number.max(initial=-1) + 1)
    np.maximum.at(longest, number, shared)
    return float(longest.sum())


def _divided(shared: np.ndarray, own: np.ndarray, unit: np.ndarray, parts: int) -> list[np.ndarray]:
    """Divide units of rows, [R] their numbers, that stay together."""
    weights = np.zeros(unit.max(initial=-1) + 1)
    np.maximum.at(weights, unit, shared)
    weights += np.bincount(unit, weights=own, minlength=len(weights))
    part_of = np.zeros(len(weights), dtype=np.int64)
    for part, units in enumerate(partition(weights, parts)):
        part_of[units] = part
    rows = [np.flatnonzero(part_of[unit] == part) for part in range(parts)]
    return sorted(rows, key=lambda part: part[0] if len(part) else len(unit))


def _differencing(weights: np.ndarray, parts: int) -> np.ndarray:
    """Return the part of each row, [R]."""
    # A division is a number: a row's own, or one more for each merge. It is known by its parts' weights, descending,
    # less those of its lightest part; which rows they have is found at the end.
    sums = [np.array([weight, *[0.0] * (parts - 1)]) for weight in weights]
    heap = [(-weight, row) for row, weight in enumerate(weights)]
    heapq.heapify(heap)
    merges: list[tuple[int, int, np.ndarray]] = []
    while len(heap) > 1:
        _, one = heapq.heappop(heap)
        _, other = heapq.heappop(heap)
        joined = sums[one] + sums[other][::-1]
        order = np.argsort(-joined, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(parts)
        merges.append((one, other, place))
        sums.append(joined[order] - joined[order[-1]])
        heapq.heappush(heap, (-sums[-1][0], len(sums) - 1))
    return _rows_of(merges, len(weights), parts)


def _rows_of(merges: list[tuple[int, int, np.ndarray]], rows: int, parts: int) -> np.ndarray:
    """Return the part, [R], of the last division to which merges brought each row."""
    final = {rows + len(merges) - 1: np.arange(parts)}  # where each part of a division ended
    for number in range(len(merges) - 1, -1, -1):
        one, other, place = merges[number]
        ended = final.pop(rows + number)[place]
        final[one] = ended
        final[other] = ended[::-1]
    return np.array([final[row][0] for row in range(rows)], dtype=np.int64)
