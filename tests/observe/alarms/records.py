"""Lines of metrics of made-up runs: one that nothing is wrong with, and changes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hybridflow.observe.alarms import alarms_of

Metrics = dict[str, Any]
Change = Callable[[int], Mapping[str, Any]]

ONE_REWARD = {
    "reward/mean": 0.0,
    "reward/std": 0.0,
    "reward/min": 0.0,
    "reward/max": 0.0,
    "rollout/unequal_groups": 0.0,
}
NO_ADVANTAGE = {"critic/advantages_max": 0.0, "critic/advantages_min": -0.0}


def well(step: int) -> Metrics:
    """A step of GRPO on two replicas that learns: small differences from step to step, as there always are."""
    wave = 1 + 0.02 * ((step * 7) % 5 - 2)
    return {
        "step": step,
        "reward/mean": min(0.2 + 0.01 * step, 0.9) * wave,
        "reward/std": 0.4 * wave,
        "reward/min": 0.0,
        "reward/max": 1.0,
        "reward/failed_share": 0.0,
        "reward/memory_peak_gib": 0.1,
        "rollout/rows": 128.0,
        "rollout/unequal_groups": 0.7 * wave,
        "rollout/truncated_fraction": 0.02,
        "rollout/version_lag_mean": 0.0,
        "response_length/mean": 100.0 * wave,
        "actor/entropy": 0.6 * wave * max(1 - 0.01 * step, 0.4),
        "actor/kl_loss": min(0.01 * (1 + step), 0.5) * wave,
        "actor/approx_kl": 0.005 * wave,
        "actor/pg_loss": -0.01 * wave,
        "actor/grad_norm": 1.0 * wave,
        "actor/updates": 2.0,
        "actor/nonfinite_updates": 0.0,
        "actor/token_imbalance": 1.02 * wave,
        "actor/memory_peak_gib": 1.2 + min(0.01 * step, 0.15),
        "driver/memory_peak_gib": 0.5,
        "actor/rollout_log_prob_diff_mean": 2e-7 * wave,
        "critic/advantages_max": 2.0,
        "critic/advantages_min": -2.0,
        "timing_s/step": 2.0 * wave,
        "timing_s/generate": 1.0 * wave,
        "timing_s/compute_reward": 0.1,
        "timing_s/straggling/main": 0.05 * wave,
        "perf/slowest_rank/main": float(step % 2),
    }


def run_of(steps: int, change: Change = lambda step: {}, *, since: int = 0) -> list[Metrics]:
    """Lines of so many steps, changed from one of them on; a change to `...` leaves the metric out."""
    lines = [well(step) | (dict(change(step)) if step >= since else {}) for step in range(steps)]
    return [{name: value for name, value in line.items() if value is not ...} for line in lines]


def names_of(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the alarms of a run, in the order in which they are told."""
    return [alarm.name for alarm in alarms_of(lines)]
