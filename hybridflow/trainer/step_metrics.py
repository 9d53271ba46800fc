"""What a step's metrics say together."""

from __future__ import annotations

from collections.abc import Mapping

from hybridflow.algorithms import Algorithm
from hybridflow.batch import BatchRef


def derived(metrics: Mapping[str, float], algorithm: Algorithm, rollout: BatchRef) -> dict[str, float]:
    """Rows that the step made and those of them that it learnt from, and the tokens of its updates.

    They are those of the role that learnt from most, so they are known too while only a critic learns. Where no role
    says so, rows are those that the flow chose.
    """
    found: dict[str, float] = {"rollout/rows": len(rollout)}
    rows = _of_roles(metrics, "/trained_rows")
    if rows:
        found["rollout/kept_rows"] = max(rows) / algorithm.config.epochs
    elif algorithm.kept is not None:
        found["rollout/kept_rows"] = algorithm.kept
    found["perf/trained_tokens"] = max(_of_roles(metrics, "/trained_tokens"), default=0.0)
    return found


def _of_roles(metrics: Mapping[str, float], name: str) -> list[float]:
    return [value for metric, value in metrics.items() if metric.endswith(name)]
