"""Grades of some rows by the graders of a role, put together: a reward each, and what there is beside it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hybridflow.batch import Ragged
from hybridflow.observe.metrics import Metrics
from hybridflow.tasks.graded_row import Grade, GradedRow

Decoder = Callable[[Sequence[int]], str]

NOT_ASKED = Grade(0.0)
"""Stands where a grader does not grade the rows of a source: it adds nothing, and nothing is measured of it."""


@dataclass(frozen=True)
class RowGrades:
    """Grades of R rows by G graders.

    Attributes:
        weights: of the graders, by name, in their order.
        given: by grader, what it gave for each row; None where it failed, `NOT_ASKED` where it was not asked.
    """

    weights: Mapping[str, float]
    given: Sequence[Sequence[Grade | None]]

    @property
    def values(self) -> np.ndarray:
        """Value of each row by each grader, [R, G] float32; NaN where it failed."""
        values = [[math.nan if grade is None else grade.value for grade in grades] for grades in self.given]
        return np.array(values, dtype=np.float32).T

    @property
    def sums(self) -> np.ndarray:
        """Weighted sum of each row, [R] float32; NaN where any grader failed."""
        weights = self.weights.values()
        first, *others = (weight * column for weight, column in zip(weights, self.values.T.astype(float), strict=True))
        return sum(others, start=first).astype(np.float32)

    def record(self, metrics: Metrics, prefix: str) -> None:
        """Record each grader of several by itself, and the parts of its grades."""
        for name, grades in zip(self.weights, self.given, strict=True):
            sound = [grade for grade in grades if grade is not None and grade is not NOT_ASKED]
            if len(self.weights) > 1:
                metrics.spread(f"{prefix}{name}/", [grade.value for grade in sound])
            for part in sorted({part for grade in sound for part in grade.parts}):
                values = [grade.parts[part] for grade in sound if part in grade.parts]
                metrics.spread(f"{prefix}{name}/{part}/", values)

    def token_rewards(self, rows: Sequence[GradedRow], responses: Ragged, decode: Decoder) -> Ragged:
        """Sum the weighted values of tokens and steps, ragged float32 over responses; 0 where there are none."""
        totals = np.zeros(int(responses.offsets[-1]))
        for weight, grades in zip(self.weights.values(), self.given, strict=True):
            for number, grade in enumerate(grades):
                if grade is None:
                    continue
                own = totals[responses.offsets[number] : responses.offsets[number + 1]]  # a view: it adds in place
                if grade.token_rewards:
                    own += weight * np.array(grade.token_rewards)
                for end, value in grade.step_rewards:
                    own[token_at(responses[number].tolist(), rows[number].response[:end], decode)] += weight * value
        return responses.like(totals.astype(np.float32))


def token_at(ids: Sequence[int], text: str, decode: Decoder) -> int:
    """Return the number of the token with which a response has come to begin with `text`."""
    found = bisect_left(range(1, len(ids)), True, key=lambda tokens: decode(ids[:tokens]).startswith(text))
    return min(found, len(ids) - 1)
