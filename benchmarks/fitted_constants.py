"""Constants of a model of seconds, fitted by least squares of the logarithms, and what it says of rows left out.

A row that is left out is predicted from a Gauss-Newton step that starts at the constants of all rows and forgets the
row, with the derivatives of all rows; more steps look at the residuals again, and end at the fit to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

STEP = 1e-3  # of a logarithm, for a derivative
FARTHEST = 0.7  # that a logarithm moves at once
ROUNDS = 40

Predict = Callable[[Sequence[int], np.ndarray], np.ndarray]
"""Seconds of some rows, by their places, for logarithms of the constants."""


@dataclass(frozen=True)
class Fit:
    """Constants that fit rows.

    Attributes:
        logarithms: of the constants.
        residuals: logarithms of predicted over observed, by row.
        derivatives: of the residuals by the logarithms, [rows, constants].
    """

    logarithms: np.ndarray
    residuals: np.ndarray
    derivatives: np.ndarray


def fit(predict: Predict, observed: np.ndarray, start: np.ndarray, rounds: int = ROUNDS) -> Fit:
    """Fit constants by Gauss-Newton steps that are damped until they improve (Levenberg and Marquardt)."""
    rows = range(len(observed))

    def residuals(logarithms: np.ndarray) -> np.ndarray:
        return np.log(predict(rows, logarithms) / observed)

    at = start
    left = residuals(at)
    damping = 1e-3
    for _ in range(rounds):
        slopes = _derivatives(residuals, at, left)
        tried = _damped(residuals, at, left, slopes, damping)
        if tried is None:
            break
        moved, damping = tried
        before = left @ left
        at = at + moved
        left = residuals(at)
        if before - left @ left < 1e-4 * before:
            break
    return Fit(at, left, _derivatives(residuals, at, left))


def predicted_left_out(
    predict: Predict, observed: np.ndarray, fitted: Fit, groups: Sequence[Hashable], rounds: int = 1
) -> np.ndarray:
    """Return the seconds of every row from constants that no row of its group had a part in."""
    seconds = np.empty(len(observed))
    for group in dict.fromkeys(groups):
        kept = [row for row, other in enumerate(groups) if other != group]
        gone = [row for row, other in enumerate(groups) if other == group]
        at = fitted.logarithms
        left = fitted.residuals[kept]
        for remaining in reversed(range(rounds)):
            step = np.linalg.lstsq(fitted.derivatives[kept], left, rcond=None)[0]
            at = at - np.clip(step, -FARTHEST, FARTHEST)  # what the kept rows do not say stays near
            if remaining:
                left = np.log(predict(kept, at) / observed[kept])
        seconds[gone] = predict(gone, at)
    return seconds


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Kendall's tau: pairs in the same order less those in the other, of all pairs."""
    one, other = (np.sign(np.subtract.outer(values, values)) for values in (first, second))
    pairs = len(first) * (len(first) - 1)
    return float((one * other).sum() / pairs)


def _derivatives(residuals: Callable[[np.ndarray], np.ndarray], at: np.ndarray, left: np.ndarray) -> np.ndarray:
    columns = [(residuals(at + STEP * unit) - left) / STEP for unit in np.eye(len(at))]
    return np.array(columns).T


def _damped(
    residuals: Callable[[np.ndarray], np.ndarray], at: np.ndarray, left: np.ndarray, slopes: np.ndarray, damping: float
) -> tuple[np.ndarray, float] | None:
    """Return a step that makes residuals smaller and the next step's damping; None: there is none."""
    for _ in range(10):
        weight = slopes.T @ slopes + damping * np.eye(len(at))
        moved = np.clip(-np.linalg.solve(weight, slopes.T @ left), -FARTHEST, FARTHEST)
        after = residuals(at + moved)
        if after @ after < left @ left:
            return moved, max(damping / 5, 1e-7)
        damping *= 5
    return None
