"""Workload: what rows add up to for a model that computes them, as an expectation or of lengths that were drawn."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, inf, sqrt
from statistics import NormalDist

import numpy as np

from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import FlowCall, Load, RunSpec

POINTS = 128  # lengths that stand for a replica's rows
NINE_IN_TEN = 1.6449  # deviations of a normal distribution, on either side of its mean


@dataclass(frozen=True)
class Workload:
    """Sum of the rows of one data parallel rank, the one that has most.

    Attributes:
        rows: sequences.
        tokens: of all of them, prompts and responses; a prompt that an engine computes once for several rows, once.
        squares: sum of the squares of their lengths, less those of the prompts that are left out: attention of a row
            of L tokens is half of L², of one whose P tokens of prompt are computed elsewhere half of L² - P².
        responses: tokens of their responses.
        length: mean tokens of a row, from its first to its last; 0: as `tokens` and `rows` say.
        parts: pieces that are packed whole: rows, or trees of rows that share a prompt; 0: as many as rows.
        deviation: of the tokens of a part; negative: as `squares` say of rows.
    """

    rows: float
    tokens: float
    squares: float
    responses: float
    length: float = 0.0
    parts: float = 0.0
    deviation: float = -1.0

    @property
    def row_tokens(self) -> float:
        """Return the mean tokens of a row."""
        return self.length or (self.tokens / self.rows if self.rows else 0.0)

    @property
    def part_tokens(self) -> tuple[float, float]:
        """Return the mean tokens of a part, and their deviation."""
        mean = self.tokens / (self.parts or self.rows)
        away = self.deviation
        return mean, sqrt(max(0.0, self.squares / self.rows - mean**2)) if away < 0 else away


def expected_workload(
    call: FlowCall, spec: RunSpec, data: int, deviations: float = 0.0, budget: float = inf
) -> Workload:
    """Return what the fullest of `data` ranks has of a call's rows.

    Args:
        deviations: how far the sum of the step's lengths is from its expectation, in its standard deviations.
        budget: tokens of a micro-batch, in which rows of a prompt must be together for it to be computed once.
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
    response = max((responses.mean + moved) * own, 0.0)
    tree = shared_rows(own, spec.load, budget)
    copies = own - own / tree  # of prompts, that are left out
    return Workload(
        own,
        tokens - copies * prompts.mean,
        own * square - copies * (prompts.mean**2 + prompts.deviation**2),
        response,
        tokens / own,
        own / tree,
        sqrt(prompts.deviation**2 + tree * responses.deviation**2) if tree > 1 else -1.0,
    )


def shared_rows(rows: float, load: Load, budget: float) -> float:
    """Return how many of a rank's rows are computed with one copy of their prompt: those of a group that fit a
    micro-batch together (`batch.row_trees`).
    """
    group = min(float(load.group), rows)
    prompt = load.row_tokens * (1 - load.learned)
    response = load.row_tokens * load.learned
    if group <= 1 or prompt + group * response <= budget:
        return max(group, 1.0)
    return max(1.0, min(group, floor((budget - prompt) / max(response, 1.0))))


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
