"""Lengths: how many tokens rows have, as a distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, pstdev

import numpy as np


@dataclass(frozen=True)
class Lengths:
    """Distribution of the tokens of prompts or of responses.

    Attributes:
        quantiles: lengths at evenly spread shares of the rows, ascending: of n, at (i + 1/2) / n. One: all are alike.
    """

    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.quantiles or min(self.quantiles) < 0:
            raise ValueError(f"lengths {self.quantiles}: at least one was expected, and none below 0")
        object.__setattr__(self, "quantiles", tuple(sorted(self.quantiles)))

    @staticmethod
    def of(tokens: Sequence[float]) -> Lengths:
        """Take lengths that were measured."""
        return Lengths(tuple(tokens))

    @cached_property
    def mean(self) -> float:
        """Return the mean."""
        return fmean(self.quantiles)

    @cached_property
    def deviation(self) -> float:
        """Return the standard deviation."""
        return pstdev(self.quantiles)

    @property
    def max(self) -> float:
        """Return the longest."""
        return self.quantiles[-1]

    def drawn(self, rows: int, seed: int) -> np.ndarray:
        """Draw as many at random, [rows] float64."""
        return np.random.default_rng(seed).choice(np.asarray(self.quantiles), rows)
