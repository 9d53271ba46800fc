"""Metrics that follow from a step's others."""

from __future__ import annotations

from collections.abc import Mapping

from hybridflow.algorithms import StepContext
from hybridflow.batch import BatchRef
from hybridflow.observe.metrics import TIMES

SPEED = "/tflops_per_rank"


def derived(metrics: Mapping[str, float], context: StepContext, rollout: BatchRef, epochs: int) -> dict[str, float]:
    """Count the rows that the step made, those that it learned from, and the tokens of its updates.

    The latter two are those of the role that learned from most, so that they are known while only a critic learns.
    Where no role says so, the rows are those that the flow chose.
    """
    metrics_of_step: dict[str, float] = {"rollout/rows": len(rollout)}
    rows = _of_roles(metrics, "/trained_rows")
    if rows:
        metrics_of_step["rollout/kept_rows"] = max(rows) / epochs
    elif context.kept is not None:
        metrics_of_step["rollout/kept_rows"] = context.kept
    metrics_of_step["perf/trained_tokens"] = max(_of_roles(metrics, "/trained_tokens"), default=0.0)
    return metrics_of_step


def utilization(metrics: Mapping[str, float], peak_flops: Mapping[str, float]) -> dict[str, float]:
    """Return ROLE/mfu, the model FLOPs utilization (Chowdhery et al., arXiv 2204.02311, appendix B), of these roles.

    Args:
        peak_flops: by role, what one of its devices could do at most a second.
    """
    speeds = {role: metrics[f"{role}{SPEED}"] for role in peak_flops if f"{role}{SPEED}" in metrics}
    return {f"{role}/mfu": speed * 1e12 / peak_flops[role] for role, speed in speeds.items()}


def slowest(ranks: Mapping[str, tuple[int, float]]) -> dict[str, float]:
    """Return the metrics of the slowest rank of each pool: by how many seconds it is, and its number.

    Args:
        ranks: by pool, that rank and these seconds.
    """
    times = {f"{TIMES}straggling/{pool}": seconds for pool, (_, seconds) in ranks.items()}
    return times | {f"perf/slowest_rank/{pool}": float(rank) for pool, (rank, _) in ranks.items()}


def _of_roles(metrics: Mapping[str, float], name: str) -> list[float]:
    return [value for metric, value in metrics.items() if metric.endswith(name)]
