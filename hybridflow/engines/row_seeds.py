"""A random stream of its own for each row: its seed.

A seed is 63 bits of a numpy SeedSequence. To make one of these for each row takes longer than all else that is done
for a row before it is sampled, so they are mixed for all rows at once, as numpy does it for one
(numpy/random/bit_generator.pyx, after M. E. O'Neill, "Developing a seed_seq alternative", 2015).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

POOL = 4
INIT_A, MULT_A = 0x43B0D7E5, 0x931E8875
INIT_B, MULT_B = 0x8B51F9DD, 0x58F38DED
MIX_LEFT, MIX_RIGHT = 0xCA01F9DD, 0x4973F715
MASK = 0xFFFFFFFF


def row_seeds(run_seed: int, step: int, stream_ids: Sequence[int], before: Counter[int]) -> list[int]:
    """Derive a seed for each row from (run seed, step, stream) and nothing else, so from no rank and no neighbor.

    Args:
        before: how often each stream has been drawn from, which is taken in and counted on: it gives another seed each
            time.
    """
    times = []
    for stream in stream_ids:
        times.append(before[stream])
        before[stream] += 1
    streams = np.array(stream_ids, dtype=np.int64)
    shared = [np.full(len(streams), word) for word in (*_words(run_seed), *_words(step))]
    return mixed([*shared, streams >> 32, streams & MASK, np.array(times)])


def _words(number: int) -> list[int]:
    """Return a number's 32-bit words, the lowest first. Raises ValueError for one below 0, as numpy does."""
    if number < 0:
        raise ValueError(f"{number} was given for a seed; it is 0 or more")
    words = [number & MASK]
    while number := number >> 32:
        words.append(number & MASK)
    return words


class _Hash:
    """Hash of 32-bit words whose constant changes with each use."""

    def __init__(self, initial: int, factor: int) -> None:
        self._constant = initial
        self._factor = factor

    def __call__(self, words: np.ndarray) -> np.ndarray:
        words = words ^ np.uint32(self._constant)
        self._constant = self._constant * self._factor & MASK
        words = words * np.uint32(self._constant)
        return words ^ (words >> np.uint32(16))


def mixed(columns: Sequence[np.ndarray]) -> list[int]:
    """Return `SeedSequence(words).generate_state(1, np.uint64)[0] >> 1` for the words of each row.

    Args:
        columns: [R] each, the rows' first words, their second ones and so on.
    """
    words = [column.astype(np.uint32) for column in columns]
    words += [np.zeros_like(words[0])] * (POOL - len(words))
    hashed = _Hash(INIT_A, MULT_A)
    pool = [hashed(word) for word in words[:POOL]]
    for source in range(POOL):
        for target in range(POOL):
            if source != target:
                pool[target] = _mix(pool[target], hashed(pool[source]))
    for word in words[POOL:]:
        for target in range(POOL):
            pool[target] = _mix(pool[target], hashed(word))
    given = _Hash(INIT_B, MULT_B)
    low, high = (given(word).astype(np.uint64) for word in pool[:2])
    made: list[int] = ((high << np.uint64(32) | low) >> np.uint64(1)).tolist()
    return made


def _mix(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    both: np.ndarray = np.uint32(MIX_LEFT) * one - np.uint32(MIX_RIGHT) * other
    return both ^ (both >> np.uint32(16))
