"""The row operations that a `Batch` and a `BatchRef` share: each is one way to say which rows to `select`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike


class Rows(ABC):
    """Ordered rows. Operations give new rows; rows that stay next to each other are not copied."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows, R."""

    @abstractmethod
    def select(self, rows: ArrayLike) -> Self:
        """Return the rows of these numbers, in their order; a number may come twice."""

    @abstractmethod
    def _key(self, name: str) -> np.ndarray:
        """Return the values by which `group_by` groups, [R]."""

    def slice(self, start: int, stop: int) -> Self:
        """Return rows `start` to `stop`, without `stop`. Raises ValueError unless 0 ≤ start ≤ stop ≤ R."""
        self._check_slice(start, stop)
        return self.select(np.arange(start, stop))

    def _check_slice(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"no rows {start}:{stop}; there are {len(self)}")

    def permute(self, order: ArrayLike) -> Self:
        """Reorder the rows. Raises ValueError unless each number from 0 to R - 1 comes once."""
        numbers = np.asarray(order)
        if not np.array_equal(np.sort(numbers), np.arange(len(self))):
            raise ValueError(f"an order of {len(self)} rows names each of them once, found {numbers}")
        return self.select(numbers)

    def repeat(self, times: int, *, interleave: bool = True) -> Self:
        """Repeat each row `times` times.

        Args:
            times: at least 1, else ValueError.
            interleave: the copies of a row follow one another: 0 0 1 1. Otherwise all rows come again: 0 1 0 1.
        """
        if times < 1:
            raise ValueError(f"rows can be repeated once or more, not {times} times")
        rows = np.arange(len(self))
        return self.select(np.repeat(rows, times) if interleave else np.tile(rows, times))

    def split(self, parts: int | Sequence[int]) -> list[Self]:
        """Cut the rows into consecutive parts.

        Args:
            parts: how many parts, as even as whole rows allow (the first ones have one more; some may be empty), or
                the number of rows of each.

        Raises ValueError for less than one part, and for sizes that are negative or do not sum to R.
        """
        if isinstance(parts, (int, np.integer)):
            if parts < 1:
                raise ValueError(f"rows can be cut into 1 part or more, not {parts}")
            sizes = even_sizes(len(self), parts)
        else:
            sizes = [int(size) for size in parts]
        if min(sizes, default=0) < 0 or sum(sizes) != len(self):
            raise ValueError(f"parts of {sizes} rows sum to {sum(sizes)}; there are {len(self)} rows")
        stops = np.cumsum(sizes, dtype=np.int64).tolist()
        return [self.slice(stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]

    def group_by(self, name: str) -> dict[Any, Self]:
        """Return the rows of each value of a column, by the value as Python has it.

        Groups are in the order of their first rows, and rows keep theirs. Raises ValueError for a column that does not
        have one value a row.
        """
        values = self._key(name)
        if values.ndim != 1:
            raise ValueError(f"column {name!r} has entries of shape {list(values.shape[1:])}, one value is wanted")
        groups: dict[Any, list[int]] = {}
        for row, value in enumerate(values.tolist()):
            groups.setdefault(value, []).append(row)
        return {value: self.select(rows) for value, rows in groups.items()}


def even_sizes(rows: int, parts: int) -> list[int]:
    """Return the number of rows of each part if they are as even as whole rows allow: the first ones have one more."""
    each, left = divmod(rows, parts)
    return [each + (part < left) for part in range(parts)]
