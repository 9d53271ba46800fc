"""Mean and spread of values that are measured in parts, exactly: the same bits however they are parted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Moments(NamedTuple):
    """Count, sum and sum of squares of some values, exactly: however they are parted, what is joined is the same.

    Which rows are measured together can depend on time (graders take what is there), and a metric must not.
    """

    size: float = 0.0
    total: tuple[float, ...] = ()
    squares: tuple[float, ...] = ()

    @staticmethod
    def of(values: ArrayLike) -> Moments:
        """Compute the moments of values."""
        exact = np.asarray(values, dtype=np.float64).ravel()
        with np.errstate(over="ignore", invalid="ignore"):  # what has no finite square has no spread, which is seen
            squares = np.concatenate(squared(exact))
        return Moments(float(exact.size), exact_sum(exact.tolist()), exact_sum(squares.tolist()))

    def plus(self, other: Moments) -> Moments:
        """Join the moments of two sets of values."""
        total, squares = exact_sum(self.total + other.total), exact_sum(self.squares + other.squares)
        return Moments(self.size + other.size, total, squares)

    @property
    def mean(self) -> float:
        """The mean; 0 of no values."""
        return math.fsum(self.total) / max(self.size, 1.0)

    @property
    def scatter(self) -> float:
        """Sum of squared deviations from the mean, which loses no digits where the mean is far from 0."""
        if not all(map(math.isfinite, self.total + self.squares)):
            return math.nan
        total, squares = (sum(map(Fraction, numbers)) for numbers in (self.total, self.squares))
        return float(squares - Fraction(total) ** 2 / Fraction(max(self.size, 1.0)))

    @property
    def deviation(self) -> float:
        """Sample deviation (n - 1), as everywhere here; 0 for one value."""
        return math.sqrt(max(self.scatter, 0.0) / max(self.size - 1, 1.0))

    @property
    def effective_share(self) -> float:
        """Effective sample size of weights as a share of their number: (Σ w)² / (n Σ w²), 1 if all are equal.

        Source: Kish's effective sample size (Survey Sampling, 1965). Without any weight above 0 it is 0.
        """
        mean_square = math.fsum(self.squares) / max(self.size, 1.0)
        return self.mean**2 / mean_square if mean_square else 0.0


def exact_sum(values: Iterable[float]) -> tuple[float, ...]:
    """Return numbers, the largest first, whose sum is that of values exactly; one number if the sum is not finite.

    `math.fsum` rounds the exact sum; what it rounded away is the sum of the values less what it gave.
    """
    rest = list(values)
    if not math.isfinite(about := sum(rest)):
        return (about,)
    terms: list[float] = []
    while term := math.fsum(rest):
        terms.append(term)
        rest.append(-term)
    return tuple(terms)


def squared(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the squares of values, and what they were rounded by.

    Source: Dekker, "A floating-point technique for extending the available precision" (1971): halves of 26 bits, whose
    products are exact.
    """
    squares = np.square(values)
    widened = values * (2.0**27 + 1)
    high = widened - (widened - values)
    low = values - high
    return squares, ((high * high - squares) + 2 * high * low) + low * low
