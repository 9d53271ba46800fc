"""Rows that begin alike, as trees: which tokens need to be computed once only, and which rows go together.

Rows are laid out as words are in a dictionary: those with a common beginning follow one another. One number a row then
says all: how many tokens it shares with the row before it. Two rows share the least of the numbers between them, and
rows have as many different tokens as their lengths less what they share, added up. (For sorted texts, that is the
array of longest common prefixes: U. Manber and G. Myers, "Suffix arrays: a new method for on-line string searches",
1993.) So a tree of any depth is two arrays, and any choice of its rows is a tree again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from hybridflow.batch.columns import Ragged, offsets_of

KEYS = 8  # of whole rows in a micro-batch, for each token of its budget; 8 samples of a prompt never have more


@dataclass(frozen=True)
class RowTrees:
    """Trees of R rows, laid out depth first. A row that shares nothing is a tree of its own.

    Attributes:
        lengths: [R] int64 tokens of each row.
        rows_per_unit: so many rows that follow one another are a unit, in one tree whatever they share.
        order: [R] the numbers of the rows as they are laid out: from the tree with the longest unit to that with the
            shortest, and within a tree so that rows with a common beginning follow one another.
        shared: [R] how many tokens each of them shares with the one before it; 0 where a tree begins.
        starts: [trees + 1] where in `order` trees begin, and its end.
    """

    lengths: np.ndarray
    rows_per_unit: int
    order: np.ndarray
    shared: np.ndarray
    starts: np.ndarray

    @staticmethod
    def of(lengths: np.ndarray, prefixes: np.ndarray, rows_per_unit: int = 1) -> RowTrees:
        """Make the trees of rows.

        Args:
            lengths: [R] tokens of each row.
            prefixes: [R, 2] with which row each shares how many tokens, as `shared_prefixes` says. That rows share with
                a third what they share with each other is concluded.
        """
        edges = [(int(shared), row, int(at)) for row, (at, shared) in enumerate(prefixes.tolist()) if at >= 0]
        # Rows of a unit are one tree, whatever they share.
        edges += [(0, row, row - row % rows_per_unit) for row in range(len(lengths)) if row % rows_per_unit]
        if not edges:
            order = np.argsort(-lengths, kind="stable")
            return RowTrees(lengths, rows_per_unit, order, np.zeros_like(order), np.arange(len(order) + 1))
        grown = _grown(len(lengths), sorted(edges, key=lambda edge: (-edge[0], *edge[1:])))
        unit_tokens = lengths.reshape(-1, rows_per_unit).sum(axis=1).tolist()
        grown.sort(key=lambda tree: -max(unit_tokens[row // rows_per_unit] for row in tree[0]))
        return RowTrees(
            lengths=lengths,
            rows_per_unit=rows_per_unit,
            order=np.array([row for rows, _ in grown for row in rows], dtype=np.int64),
            shared=np.array([count for _, counts in grown for count in counts], dtype=np.int64),
            starts=offsets_of(np.array([len(rows) for rows, _ in grown], dtype=np.int64)),
        )

    @cached_property
    def _place(self) -> np.ndarray:
        """Place of each row in `order`, [R]."""
        place = np.empty_like(self.order)
        place[self.order] = np.arange(len(self.order))
        return place

    def layout(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lay some rows out: which of them comes where, [n], and what each then shares with the one before it, [n]."""
        places = self._place[rows]
        laid_out = np.argsort(places)
        places = places[laid_out]
        shared = np.zeros(len(places), dtype=np.int64)
        if len(places) > 1:
            shared[1:] = np.minimum.reduceat(self.shared[: places[-1] + 1], places[:-1] + 1)
        return laid_out, shared

    def unique_tokens(self, rows: np.ndarray) -> int:
        """Count the different tokens of some rows: what is computed of them if they go together."""
        return int(self.lengths[rows].sum() - self.layout(rows)[1].sum())

    def load(self, rows: np.ndarray) -> int:
        """Return how many tokens of a budget some rows take up: the different ones, or all / KEYS if these are more.

        Attention gathers keys and values of whole rows, which for many short rows after a long prefix may be any number
        of times the different tokens; a budget is there to bound memory.
        """
        return max(self.unique_tokens(rows), -(-int(self.lengths[rows].sum()) // KEYS))

    def micro_batches(self, budget: int) -> list[np.ndarray]:
        """Divide the rows into micro-batches whose `load` is at most `budget`, or of one unit.

        Trees stay whole, one after the other, unless that made more micro-batches than rows that share nothing would
        need, longest first; then trees are cut, or as the last resort rows are taken longest first. Of what makes no
        more micro-batches than that, it is what computes the fewest tokens.

        Returns:
            Of each micro-batch the numbers of its rows, unit by unit.
        """
        unit_tokens = self.lengths.reshape(-1, self.rows_per_unit).sum(axis=1)
        longest_first = np.argsort(-unit_tokens, kind="stable")
        limit = _next_fit(unit_tokens[longest_first], budget)
        whole = self._whole_trees(budget)
        if len(whole) <= limit and self._tokens(whole) == int((self.lengths - self.shared[self._place]).sum()):
            return [*map(self._rows, whole)]
        in_order = [*dict.fromkeys((self.order // self.rows_per_unit).tolist())]
        ways = [whole, self._cut(in_order, budget), self._cut(longest_first.tolist(), budget)]
        fewest = min((way for way in ways if len(way) <= limit), key=lambda way: (self._tokens(way), len(way)))
        return [*map(self._rows, fewest)]

    def _whole_trees(self, budget: int) -> list[list[int]]:
        """Put units into micro-batches so that a tree within the budget is never cut."""
        if not len(self.order):
            return []
        whole, own = (
            np.add.reduceat(tokens, self.starts[:-1])
            for tokens in (self.lengths[self.order], self.lengths[self.order] - self.shared)
        )
        sizes = np.maximum(own, -(-whole // KEYS))
        units_of_rows = (self.order // self.rows_per_unit).tolist()
        filled: list[list[int]] = []
        room = 0
        starts = self.starts.tolist()
        for size, start, stop in zip(sizes.tolist(), starts, starts[1:], strict=False):
            units = units_of_rows[start:stop]
            parts = [units] if size <= budget else self._cut([*dict.fromkeys(units)], budget)
            for part in parts:
                load = size if len(parts) == 1 else self.load(self._rows(part))
                if load > room:
                    filled.append([])
                    room = budget
                filled[-1] += part
                room -= load
        return [[*dict.fromkeys(units)] for units in filled]

    def _cut(self, units: Sequence[int], budget: int) -> list[list[int]]:
        """Put units into micro-batches in this order, each as full as the next unit allows."""
        filled: list[list[int]] = []
        start = 0
        while start < len(units):
            # More units are never a smaller load, so the last one that fits is found by halving.
            load = partial(self._load_of_run, units, start)
            span = 1
            while start + span < len(units) and load(start + span) <= budget:
                span *= 2
            stops = range(start + 1, min(start + span, len(units)) + 1)
            stop = start + max(1, bisect_right(stops, budget, key=load))
            filled.append([*units[start:stop]])
            start = stop
        return filled

    def _load_of_run(self, units: Sequence[int], start: int, stop: int) -> int:
        return self.load(self._rows(units[start:stop]))

    def _rows(self, units: Sequence[int]) -> np.ndarray:
        """Return the rows of units, in their order."""
        rows: np.ndarray = np.array(units)[:, None] * self.rows_per_unit + np.arange(self.rows_per_unit)
        return rows.reshape(-1)

    def _tokens(self, parts: Sequence[Sequence[int]]) -> int:
        """Count what is computed of units in these parts."""
        return sum(self.unique_tokens(self._rows(units)) for units in parts)


def token_places(lengths: np.ndarray, shared: np.ndarray) -> Ragged:
    """Find where the tokens of rows are, if each row adds those that the one before it has not: [n] rows of places.

    Args:
        lengths, shared: [n] of rows that are laid out (`RowTrees.layout`).
    """
    ends = np.cumsum(lengths - shared)
    offsets = offsets_of(lengths)
    places = np.arange(offsets[-1]) + np.repeat(ends - offsets[1:], lengths)
    for row in np.flatnonzero(shared).tolist():
        count = shared[row]
        places[offsets[row] : offsets[row] + count] = places[offsets[row - 1] : offsets[row - 1] + count]
    return Ragged(places, offsets)


def _grown(count: int, edges: Sequence[tuple[int, int, int]]) -> list[tuple[list[int], list[int]]]:
    """Join rows to trees, from the edge with the most tokens to that with the fewest (Kruskal's algorithm).

    So what two rows share is the least number between them, as each join puts whole trees side by side that share less.

    Args:
        edges: (tokens, row, row).

    Returns:
        Of each tree its rows, and how many tokens each shares with the one before it.
    """
    trees = {row: ([row], [0]) for row in range(count)}
    tree_of = [*range(count)]
    for shared, *ends in edges:
        first, second = sorted(tree_of[row] for row in ends)
        if first == second:
            continue
        rows, counts = trees[first]
        more, more_counts = trees.pop(second)
        rows += more
        counts += [shared, *more_counts[1:]]
        for row in more:
            tree_of[row] = first
    return [*trees.values()]


def _next_fit(sizes: np.ndarray, budget: int) -> int:
    """Count the micro-batches that units of these sizes make, one after the other."""
    count = 0
    room = 0
    for size in sizes.tolist():
        if size > room:
            count += 1
            room = budget
        room -= size
    return count
