"""Parts of about the same weight: the differencing method of Karmarkar and Karp, for any number of parts."""

from __future__ import annotations

import heapq

import numpy as np


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
