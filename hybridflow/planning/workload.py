"""Workload: what rows add up to for a model that computes them, as an expectation or of lengths that were drawn."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np

from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import FlowCall, RunSpec

POINTS = 128  # lengths that stand for a replica's rows
NINE_IN_TEN = 1.6449  # deviations of a normal distribution, on either side of its mean


@dataclass(frozen=True)
class Workload:
    """Sum of the rows of one data parallel rank, the one that has most.

    Attributes:
        rows: sequences.
        tokens: of all of them, prompts and responses.
        squares: sum of the squares of their lengths.
        responses: tokens of their responses.
    """

    rows: float
    tokens: float
    squares: float
    responses: float

    @property
    def length(self) -> float:
        """Return the mean tokens of a row."""
        return self.tokens / self.rows if self.rows else 0.0


def expected_workload(call: FlowCall, spec: RunSpec, data: int, deviations: float = 0.0) -> Workload:
    """Return what the fullest of `data` ranks has of a call's rows.

    Args:
        deviations: how far the sum of the step's lengths is from its expectation, in its standard deviations.
    """
    rows = call.rows * call.sequences
    if not rows:
        return Workload(0.0, 0.0, 0.0, 0.0)
    prompts, responses = spec.prompt_tokens, spec.response_tokens
    own = float(ceil(rows / data))
    mean = prompts.mean + responses.mean
    spread = sqrt(prompts.deviation**2 + responses.deviation**2)
    moved = deviations * responses.deviation / sqrt(rows)  # of the mean length
    if call.balanced:
        tokens = max(rows / data, 1.0) * (mean + moved)
        own = max(rows / data, 1.0)
    else:
        tokens = own * (mean + moved) + fullest(data) * spread * sqrt(own)
    square = spread**2 + (mean + moved) ** 2
    response = (responses.mean + moved) * own
    return Workload(own, tokens, own * square, max(response, 0.0))


def fullest(parts: int) -> float:
    """Return the expected maximum of so many standard normal numbers (Blom's approximation)."""
    return NormalDist().inv_cdf((parts - 0.375) / (parts + 0.25)) if parts > 1 else 0.0


def ordered_lengths(lengths: Lengths, rows: int, of: int, deviations: float = 0.0) -> np.ndarray:
    """Return the lengths to expect of the slowest of several replicas' rows, at most `POINTS`, in no order.

    They are the distribution's, evenly; the longest is that of the `of` rows of all replicas.

    Args:
        deviations: of the longest, and of the sum, as if normal.
    """
    points = min(rows, POINTS)
    at = np.arange(points) / points + 0.5 / points
    known = np.asarray(lengths.quantiles)
    places = (np.arange(len(known)) + 0.5) / len(known)
    drawn = np.interp(at, places, known)
    top = NormalDist().cdf(deviations) ** (1.0 / max(of, 1))
    drawn[-1] = max(np.interp(top, places, known), drawn[-1])
    moved = deviations * lengths.deviation / sqrt(max(rows, 1))
    found = np.clip(drawn + moved * (np.arange(points) < points - 1), 1.0, max(lengths.max, 1.0))
    # Steps of the golden ratio mix long and short ones without a seed.
    mixed: np.ndarray = found[np.argsort(np.arange(points) * 0.6180339887498949 % 1.0)]
    return mixed
