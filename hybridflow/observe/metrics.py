"""Metrics: recorded where they arise, joined across ranks and calls by what they are (a weighted mean, a largest)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hybridflow.dispatch import join


@dataclass
class Metrics(Mapping[str, float]):
    """Scalars by name. A mean keeps its weight, so that joining uneven parts stays exact.

    Read as a mapping it gives one number a name.

    Example:
        metrics.mean("actor/kl", total_kl, weight=tokens)   # total over tokens, not the mean itself
        metrics.largest("actor/grad_norm", norm)
        metrics.total("perf/response_tokens", tokens)
        metrics["actor/kl"]                                 # the mean
    """

    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)

    def mean(self, name: str, total: float, weight: float = 1.0) -> None:
        """Add `total`, the sum of a quantity over `weight` things (rows, tokens, calls)."""
        if weight:
            had_total, had_weight = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (had_total + float(total), had_weight + float(weight))

    def total(self, name: str, value: float) -> None:
        """Add to a sum."""
        self.totals[name] = self.totals.get(name, 0.0) + float(value)

    def largest(self, name: str, value: float) -> None:
        """Keep the largest value; NaN is larger than all, so that it is seen."""
        self.maxima[name] = float(np.maximum(value, self.maxima.get(name, float("-inf"))))

    def add(self, other: Metrics) -> None:
        """Take in another's."""
        for name, (total, weight) in other.sums.items():
            self.mean(name, total, weight)
        for name, value in other.totals.items():
            self.total(name, value)
        for name, value in other.maxima.items():
            self.largest(name, value)

    def __bool__(self) -> bool:
        return bool(self.sums or self.totals or self.maxima)

    def __getitem__(self, name: str) -> float:
        return self.result()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.result())

    def __len__(self) -> int:
        return len(self.result())

    def result(self) -> dict[str, float]:
        """One number a name."""
        means = {name: total / weight for name, (total, weight) in self.sums.items()}
        return dict(sorted({**means, **self.totals, **self.maxima}.items()))


@join.register
def _(first: Metrics, outputs: Sequence[Metrics | None]) -> Metrics:
    joined = Metrics()
    for metrics in outputs:
        if metrics is not None:  # of a rank that was not called
            joined.add(metrics)
    return joined
