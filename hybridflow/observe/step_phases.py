"""Where the time of a step went: the calls of its metrics by phase and role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hybridflow.observe.metrics import TIMES
from hybridflow.observe.run_records import finite

GENERATION, PREPARATION, TRAINING, SYNC, OTHER = "generation", "preparation", "training", "weight sync", "other"
PHASES = (GENERATION, PREPARATION, TRAINING, SYNC, OTHER)
"""The stages of a step of RLHF (Sheng et al., arXiv 2409.19256, section 2.1), and what makes the next one possible."""

CALLS = {
    "generate_sequences": (GENERATION, "rollout"),
    "stream_sequences": (GENERATION, "rollout"),
    "advance_rollouts": (GENERATION, "rollout"),
    "rest_rollouts": (GENERATION, "rollout"),
    "compute_reward": (PREPARATION, "reward"),
    "compute_baseline": (PREPARATION, "reward"),
    "compute_cost": (PREPARATION, "cost"),
    "log_rollouts": (PREPARATION, "reward"),
    "compute_log_prob": (PREPARATION, "actor"),
    "recall_log_probs": (PREPARATION, "actor"),
    "compute_ref_log_prob": (PREPARATION, "reference"),
    "compute_ref_pair": (PREPARATION, "reference"),
    "compute_values": (PREPARATION, "critic"),
    "compute_cost_values": (PREPARATION, "cost_critic"),
    "compute_advantage": (PREPARATION, "advantages"),
    "compute_constrained_advantage": (PREPARATION, "advantages"),
    "update_policy": (TRAINING, "actor"),
    "update_actor": (TRAINING, "actor"),
    "update_preferred": (TRAINING, "actor"),
    "update_supervised": (TRAINING, "actor"),
    "update_critic": (TRAINING, "critic"),
    "update_cost_critic": (TRAINING, "cost_critic"),
    "update_reward_model": (TRAINING, "reward_model"),
    "sync_weights": (SYNC, "actor"),
    "send_weights": (SYNC, "actor"),
    "receive_weights": (SYNC, "rollout"),
    "report_version": (SYNC, "rollout"),
    "connect": (SYNC, "rollout"),
}
PARTS = ("step", "generate", "environment", "journal", "refit", "refit_sending", "refit_proof")
"""Times that are no call of their own: the step itself, and what is within a call."""
IDLE = f"{TIMES}idle/"
LONGEST_S = 1e9  # of what may be a time at all


@dataclass(frozen=True)
class PhaseTime:
    """Seconds that calls of a role took in a phase, of each call those of its slowest rank.

    Attributes:
        role: of a method that is not ours, its name.
    """

    phase: str
    role: str
    seconds: float


def phase_times(metrics: Mapping[str, object]) -> list[PhaseTime]:
    """Return the times of a step, by phase in the order of a step, in each the longest first.

    They add up to more than the step where pools work at the same time.
    """
    sums: dict[tuple[str, str], float] = {}
    for name, value in metrics.items():
        method = name.removeprefix(TIMES)
        seconds = finite(value)
        if method == name or "/" in method or method in PARTS or not seconds or not 0 < seconds < LONGEST_S:
            continue
        place = CALLS.get(method, (OTHER, method))
        sums[place] = sums.get(place, 0.0) + seconds
    times = [PhaseTime(phase, role, seconds) for (phase, role), seconds in sums.items()]
    return sorted(times, key=lambda time: (PHASES.index(time.phase), -time.seconds))


def step_seconds(metrics: Mapping[str, object]) -> float:
    """Return the seconds of a step; 0: they are not known."""
    seconds = finite(metrics.get(f"{TIMES}step")) or 0.0
    return seconds if 0 < seconds < LONGEST_S else 0.0


def idle_seconds(metrics: Mapping[str, object]) -> dict[str, float]:
    """Return by pool the seconds of a step in which none of its ranks worked."""
    times = {name.removeprefix(IDLE): finite(value) for name, value in metrics.items() if name.startswith(IDLE)}
    return {pool: seconds for pool, seconds in times.items() if seconds is not None}
