"""Orders in which training takes rows: shuffled, by a curriculum, and several sources in given shares.

Invariant: which row stands at a place is a function of the seed, the rows and the place only. Orders keep nothing but
passes that they have computed, so a resumed run goes on by asking for its next place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

LONGEST_PATTERN = 100_000
KEPT = 2  # passes: a draw at a seam asks for both sides of it


class RowOrder(Protocol):
    """Endless order of rows."""

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return [P] int64 row numbers at [P] places, which count from 0."""
        ...


@dataclass(frozen=True)
class Portion:
    """Portion of a split that comes from one source.

    Attributes:
        rows: [n] int64 row numbers.
        weight: its part of the rows that training takes, beside the other portions' weights.
    """

    name: str
    rows: np.ndarray
    weight: float


@dataclass(frozen=True)
class Curriculum:
    """Levels of rows, the easiest first, and how a walk goes through them.

    Attributes:
        levels: [size] numbers; rows with small ones come first.
        pools: 0: every pass has all rows, sorted. Else pass 1 has the first 1/pools of the sorted rows, pass 2 has the
            first 2/pools, and so on; a pass is shuffled, and from pass `pools` on each has all rows.
    """

    levels: np.ndarray
    pools: int = 0


class Walk:
    """Endless order that goes through rows pass by pass; a pass has each of its rows once.

    Args:
        rows: [n] int64 row numbers, or how many rows there are.
        seed: numbers that the passes are drawn by, each with its own number after them.

    Without a curriculum each pass is another permutation. With one, rows of a level are shuffled anew each pass.
    """

    def __init__(self, rows: np.ndarray | int, seed: Sequence[int], curriculum: Curriculum | None = None) -> None:
        self._rows = rows
        self._seed = tuple(seed)
        self._kept: dict[int, np.ndarray] = {}
        self._levels: np.ndarray | None = None
        count = rows if isinstance(rows, int) else len(rows)
        lengths = [count]
        if curriculum is not None:
            numbers = np.arange(rows) if isinstance(rows, int) else rows
            levels = curriculum.levels[numbers]
            if curriculum.pools:
                self._rows = numbers[np.argsort(levels, kind="stable")]
                lengths = [-(-count * pool // curriculum.pools) for pool in range(1, curriculum.pools + 1)]
            else:
                self._levels = levels
        self.lengths = tuple(lengths)
        """Rows of the first passes; all later ones are as long as the last of these."""

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return [P] int64 row numbers at [P] places, which count from 0."""
        starts = np.cumsum([0, *self.lengths])
        passes = np.searchsorted(starts, places, side="right") - 1
        last = len(self.lengths) - 1
        later = places >= starts[last]
        passes[later] = last + (places[later] - starts[last]) // self.lengths[-1]
        begin = starts[np.minimum(passes, last)] + np.maximum(passes - last, 0) * self.lengths[-1]
        rows = np.empty(len(places), dtype=np.int64)
        for number in np.unique(passes).tolist():
            within = passes == number
            rows[within] = self._pass(number)[(places - begin)[within]]
        return rows

    def _pass(self, number: int) -> np.ndarray:
        """Return the row numbers of a pass in their order. Computing it takes as long as the split is large."""
        if number not in self._kept:
            length = self.lengths[min(number, len(self.lengths) - 1)]
            order = np.random.default_rng([*self._seed, number]).permutation(length)
            if self._levels is not None:
                order = order[np.argsort(self._levels[order], kind="stable")]
            self._kept = {other: self._kept[other] for other in list(self._kept)[1 - KEPT :]}
            self._kept[number] = order if isinstance(self._rows, int) else self._rows[order]
        return self._kept[number]


class Mixed:
    """Endless order of several sources, each at its own share of the places and in its own walk.

    Whose turn it is follows one pattern over and over (`turns`), so each window as long as the pattern has exactly the
    shares. Each source's walk goes on from where its last turn ended: small ones come round more often than large ones.
    """

    def __init__(self, walks: Sequence[Walk], weights: Sequence[float]) -> None:
        self.walks = tuple(walks)
        self.counts = whole_shares(weights)
        self._turns = turns(self.counts)
        own = self._turns[:, None] == np.arange(len(walks))
        self._before = (np.cumsum(own, axis=0) - own)[np.arange(len(own)), self._turns]

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return [P] int64 row numbers at [P] places, which count from 0."""
        rounds, spots = np.divmod(places, len(self._turns))
        sources = self._turns[spots]
        taken = rounds * np.asarray(self.counts)[sources] + self._before[spots]
        rows = np.empty(len(places), dtype=np.int64)
        for source, walk in enumerate(self.walks):
            own = sources == source
            rows[own] = walk.at(taken[own])
        return rows


def whole_shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Return weights as the smallest whole numbers of the same proportions: 0.7 and 0.3 are 7 and 3.

    Raises ValueError for a weight that is not above 0, or weights whose numbers add up to more than `LONGEST_PATTERN`.
    """
    if not all(0 < weight < math.inf for weight in weights):
        raise ValueError(f"the weights are {', '.join(map(str, weights))}; numbers above 0 were expected")
    exact = [Fraction(str(weight)) for weight in weights]
    unit = math.lcm(*(part.denominator for part in exact))
    whole = [int(part * unit) for part in exact]
    counts = tuple(number // math.gcd(*whole) for number in whole)
    if sum(counts) > LONGEST_PATTERN:
        raise ValueError(
            f"the weights {', '.join(map(str, weights))} are as {', '.join(map(str, counts))}, which repeats after "
            f"{sum(counts)} rows, more than {LONGEST_PATTERN}; give weights with fewer digits"
        )
    return counts


def turns(counts: Sequence[int]) -> np.ndarray:
    """Return whose turn each place of a pattern is, [sum(counts)] int64: source k has counts[k] of them, evenly spread.

    In the first n places, for every n, a source with the share s has s·n turns, give or take 1 - 1/(2K - 2) of K
    sources. So it does in any window of the repeated pattern, give or take twice that: 1 for two sources, less than 2
    for more. The rule is that of R. Tijdeman, The chairman assignment problem (Discrete Mathematics 32, 1980): of
    the sources that are due, the one that would be late first.
    """
    sources = range(len(counts))
    if len(counts) == 1:
        return np.zeros(counts[0], dtype=np.int64)
    total = sum(counts)
    slack = 2 * len(counts) - 2
    ahead = [0] * len(counts)  # turns that a source is owed, in units of 1/(slack·total)
    pattern = np.empty(total, dtype=np.int64)
    for place in range(total):
        for source in sources:
            ahead[source] += slack * counts[source]
        due = [source for source in sources if ahead[source] >= total]
        chosen = min(due, key=lambda source: ((slack - 1) * total - ahead[source]) / counts[source])
        ahead[chosen] -= slack * total
        pattern[place] = chosen
    return pattern


def row_order(size: int, seed: int, portions: Sequence[Portion] = (), curriculum: Curriculum | None = None) -> RowOrder:
    """Return the order of a split's rows: shuffled, or by a curriculum; of portions, a mixture of such orders."""
    if not portions:
        return Walk(size, [seed], curriculum)
    walks = [Walk(portion.rows, [seed, number], curriculum) for number, portion in enumerate(portions)]
    return Mixed(walks, [portion.weight for portion in portions])
