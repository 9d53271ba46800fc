"""What the benchmark of dispatch runs on light ranks: the same functions as a role of ours and as plain Ray actors."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray

from hybridflow.batch import Batch, Ragged
from hybridflow.batch import columns as col
from hybridflow.dispatch import using
from hybridflow.roles import Role, roles
from hybridflow.workers import Context, Worker


def row_sums(rows: Ragged) -> np.ndarray:
    """[R] of rows that all have a value."""
    return np.add.reduceat(rows.values, rows.offsets[:-1])


@roles.register("bench")
class Bench(Role, Worker):
    """Calls that do little, so that what is left is dispatch."""

    light = True

    @using("one_to_all")
    def noop(self) -> None:
        """Nothing."""

    @using("3d_proto", needs=["x"], gives=["y"])
    def add(self, rows: Batch) -> Batch:
        """As many bytes as came."""
        x = rows.ragged("x")
        return Batch(y=x.like(x.values + 1))

    @using("3d_proto", needs=["y"], gives=["z"])
    def add_again(self, rows: Batch) -> Batch:
        """As many bytes as came."""
        y = rows.ragged("y")
        return Batch(z=y.like(y.values + 1))

    @using("3d_proto", needs=["z"], gives=["sum"])
    def sums(self, rows: Batch) -> Batch:
        """Give a number a row."""
        return Batch(sum=row_sums(rows.ragged("z")))


@roles.register("counting_bench")
class CountingBench(Bench):
    """Also counts what its process copies out of chunks. Everything that takes rows out of them is `columns.gather`."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._copied, gather = 0, col.gather

        def counting(runs: Any) -> col.Column:
            found = gather(runs)
            values = col.values_of(found)
            if not any(np.may_share_memory(values, col.values_of(column)) for column, _, _ in runs):
                self._copied += values.nbytes
            if isinstance(found, Ragged):
                self._copied += found.offsets.nbytes
            return found

        col.gather = counting  # type: ignore[assignment]

    @using("one_to_all")
    def copied(self) -> int:
        """Bytes since the last time."""
        copied, self._copied = self._copied, 0
        return copied


class PlainActor:
    """The same by hand: chunks and ranges of rows come as arguments."""

    def noop(self, *_: Any) -> None:
        """Nothing."""

    def add(self, ranges: list[tuple[int, int]], *chunks: tuple[np.ndarray, np.ndarray]) -> Any:
        """See `Bench`."""
        values, offsets = taken(ranges, chunks)
        return values + 1, offsets

    def sums(self, ranges: list[tuple[int, int]], *chunks: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """See `Bench`."""
        values, offsets = taken(ranges, chunks)
        return np.add.reduceat(values, offsets[:-1])

    @ray.method(num_returns=2)
    def add_known(self, ranges: list[tuple[int, int]], *chunks: tuple[np.ndarray, np.ndarray]) -> Any:
        """And the lengths of its rows, for the driver."""
        found = self.add(ranges, *chunks)
        return np.diff(found[1]).tobytes(), found

    @ray.method(num_returns=2)
    def sums_known(self, ranges: list[tuple[int, int]], *chunks: tuple[np.ndarray, np.ndarray]) -> Any:
        """And how many rows there are."""
        found = self.sums(ranges, *chunks)
        return len(found), found


def taken(ranges: list[tuple[int, int]], chunks: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Values and offsets of some chunks' rows in one piece: a view if they are in one chunk, else one copy."""
    values, offsets, before = [], [np.zeros(1, np.int64)], 0
    for (start, stop), (held, bounds) in zip(ranges, chunks, strict=True):
        first, last = bounds[start], bounds[stop]
        values.append(held[first:last])
        offsets.append(bounds[start + 1 : stop + 1] + (before - first))
        before += last - first
    return values[0] if len(values) == 1 else np.concatenate(values), np.concatenate(offsets)
