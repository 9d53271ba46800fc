"""Metrics: recorded where they arise, joined across ranks and calls by what they are (a weighted mean, a largest)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hybridflow.dispatch import join
from hybridflow.observe.moments import Moments

TIMES = "timing_s/"
"""Names of seconds begin with it: of one call the slowest rank counts, and the calls of a step add up."""


def _renamed(name: str, old: str, new: str) -> str:
    return new + name.removeprefix(old) if name.startswith(old) else name


@dataclass
class Metrics(Mapping[str, float]):
    """Scalars by name. A mean keeps its weight, so that joining uneven parts stays exact.

    Read as a mapping it gives one number a name.

    Example:
        metrics.mean("actor/kl", total_kl, weight=tokens)   # total over tokens, not the mean itself
        metrics.max("actor/grad_norm", norm)
        metrics.total("perf/response_tokens", tokens)
        metrics.spread("reward/", rewards)                  # reward/mean, reward/std, reward/min, reward/max
        metrics.count("talks", talks)                       # things that means are over, also where none had any of it
        metrics.per("environment/found", found, "talks")
        metrics["actor/kl"]                                 # the mean
    """

    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)
    minima: dict[str, float] = field(default_factory=dict)
    spreads: dict[str, Moments] = field(default_factory=dict)
    explained: dict[str, tuple[Moments, Moments]] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    shares: dict[str, tuple[float, str]] = field(default_factory=dict)
    weights: dict[str, Moments] = field(default_factory=dict)

    def mean(self, name: str, total: float, weight: float = 1.0) -> None:
        """Add `total`, the sum of a quantity over `weight` things (rows, tokens, calls)."""
        if weight:
            had_total, had_weight = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (had_total + float(total), had_weight + float(weight))

    def count(self, things: str, number: float) -> None:
        """Add to the number of things that `per` is the mean over; it is no metric itself."""
        self.counts[things] = self.counts.get(things, 0.0) + float(number)

    def per(self, name: str, total: float, things: str) -> None:
        """Add to a sum over things that are counted: its mean is over all of them, on whatever rank and in whatever
        call.
        """
        self.shares[name] = self.shares.get(name, (0.0, ""))[0] + float(total), things

    def total(self, name: str, value: float) -> None:
        """Add to a sum."""
        self.totals[name] = self.totals.get(name, 0.0) + float(value)

    def max(self, name: str, value: float) -> None:
        """Keep the largest value, of any rank; NaN is larger than all, so that it is seen."""
        self.maxima[name] = float(np.maximum(value, self.maxima.get(name, float("-inf"))))

    def min(self, name: str, value: float) -> None:
        """Keep the smallest value; NaN is smaller than all, so that it is seen."""
        self.minima[name] = float(np.minimum(value, self.minima.get(name, float("inf"))))

    def spread(self, prefix: str, values: ArrayLike) -> None:
        """Record mean, deviation, minimum and maximum of values, one a row: `<prefix>mean`, `…std`, `…min`, `…max`."""
        exact = np.asarray(values, dtype=np.float64)
        if not exact.size:
            return
        self._spread(prefix, Moments.of(exact))
        self.min(f"{prefix}min", float(exact.min()))
        self.max(f"{prefix}max", float(exact.max()))

    def explain(self, name: str, targets: ArrayLike, guesses: ArrayLike) -> None:
        """Record the share of the targets' variance that guesses explain: 1 - Var(target - guess) / Var(target).

        1 for guesses that are right but for a constant, 0 for a constant guess, below 0 for worse ones. Without
        variance, but for the rounding of float32, there is nothing to explain, and no such metric.
        """
        exact = np.asarray(targets, dtype=np.float64)
        errors = exact - np.asarray(guesses, dtype=np.float64)
        self._explained(name, (Moments.of(exact), Moments.of(errors)))

    def effective(self, name: str, weights: ArrayLike) -> None:
        """Record the effective share of weights; see `Moments.effective_share`."""
        self._weighed(name, Moments.of(weights))

    def renamed(self, old: str, new: str) -> Metrics:
        """Return the same records, where those whose names begin with `old` begin with `new` instead."""
        changed: list[Any] = [{_renamed(name, old, new): of[name] for name in of} for of in self.parts()]
        made = Metrics(*changed)
        made.shares = {name: (total, _renamed(things, old, new)) for name, (total, things) in made.shares.items()}
        return made

    def add(self, other: Metrics) -> None:
        """Merge another's records into these."""
        for name, (total, weight) in other.sums.items():
            self.mean(name, total, weight)
        for name, value in other.totals.items():
            self.total(name, value)
        for name, value in other.maxima.items():
            self.max(name, value)
        for name, value in other.minima.items():
            self.min(name, value)
        for prefix, moments in other.spreads.items():
            self._spread(prefix, moments)
        for name, both in other.explained.items():
            self._explained(name, both)
        for things, number in other.counts.items():
            self.count(things, number)
        for name, (total, things) in other.shares.items():
            self.per(name, total, things)
        for name, moments in other.weights.items():
            self._weighed(name, moments)

    def _spread(self, prefix: str, moments: Moments) -> None:
        self.spreads[prefix] = self.spreads.get(prefix, Moments()).plus(moments)

    def _weighed(self, name: str, moments: Moments) -> None:
        self.weights[name] = self.weights.get(name, Moments()).plus(moments)

    def _explained(self, name: str, both: tuple[Moments, Moments]) -> None:
        targets, errors = self.explained.get(name, (Moments(), Moments()))
        self.explained[name] = targets.plus(both[0]), errors.plus(both[1])

    def parts(self) -> tuple[Mapping[str, Any], ...]:
        """Return everything recorded, in the order of its fields: `Metrics(*parts)` makes it again."""
        joined = self.sums, self.totals, self.maxima, self.minima, self.spreads, self.explained
        return *joined, self.counts, self.shares, self.weights

    def __bool__(self) -> bool:
        return any(self.parts())

    def __getitem__(self, name: str) -> float:
        return self.result()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.result())

    def __len__(self) -> int:
        return len(self.result())

    def result(self) -> dict[str, float]:
        """Return one number a name."""
        means = {name: total / weight for name, (total, weight) in self.sums.items()}
        means |= {f"{prefix}mean": moments.mean for prefix, moments in self.spreads.items()}
        deviations = {f"{prefix}std": moments.deviation for prefix, moments in self.spreads.items()}
        explained = {name: 1 - e.scatter / t.scatter for name, (t, e) in self.explained.items() if _varies(t, e)}
        shares = {name: total / self.counts[of] for name, (total, of) in self.shares.items() if self.counts.get(of)}
        effective = {name: moments.effective_share for name, moments in self.weights.items() if moments.size}
        means |= shares | deviations | explained | effective
        numbers = {**means, **self.totals, **self.maxima, **self.minima}
        return dict(sorted(numbers.items()))


def _varies(targets: Moments, errors: Moments) -> bool:
    """Tell whether targets, sums of a guess and its error in float32, vary by more than the rounding of these sums."""
    scale = targets.mean**2 + errors.mean**2 + errors.scatter / max(errors.size, 1.0)
    # float32 rounds a value by 6e-8 of its size, so its square by 4e-15: 1e-12 leaves room for what the sums add.
    return targets.scatter > 1e-12 * scale * targets.size


@join.register
def _(first: Metrics, outputs: Sequence[Metrics | None]) -> Metrics:
    joined = Metrics()
    for metrics in outputs:
        if metrics is not None:  # of a rank that was not called
            joined.add(metrics)
    return joined
