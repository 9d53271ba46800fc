"""What the simulation says of a run before it is made, from a run of sync.

Of each step of sync it takes how long generation, scoring (a reference, graders) and a weight sync took. All else is
the learner's, with what the controller does between calls. It simulates another schedule with generation and the
learner on pools of their own; scoring is on the learner's. What a run of that schedule took is then compared with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.short_runs import metrics_of
from hybridflow.planning.simulated_run import Costs, SimulatedRun
from hybridflow.scheduling import policy_of

WITHIN = 0.15
SCORING = ("compute_ref_log_prob", "compute_reward")  # methods that GRPO's `rollout` calls, beside generation


SCORES_AHEAD = ("one_step_off",)  # rows are scored before a step learns from them; else it is the step's own first part


def steps_of(folder: Path) -> list[dict[str, float]]:
    """Return the metrics of a run's steps, but for the first, in which everything is made that is kept."""
    return metrics_of(folder, "timing_s/step")[1:]


def simulated_step_s(schedule: str, steps: list[dict[str, float]]) -> float:
    """Simulate a schedule; return the mean seconds of a step, but for the first.

    A prompt stands for a step, and its length is the seconds of generation: which advances a step's rows at once.
    """
    first = {name: fmean(step.get(name, 0.0) for step in steps) for name in steps[0]}  # its own rows nobody overlaps
    generation = np.array([[step["timing_s/generate_sequences"]] for step in [first, *steps]])
    scoring = sum(step.get(f"timing_s/{method}", 0.0) for step in steps for method in SCORING)
    sync = [step.get("timing_s/refit", 0.0) for step in steps]
    generated = float(generation[1:].sum())
    learning = sum(step["timing_s/step"] for step in steps) - generated - scoring - sum(sync)
    if schedule not in SCORES_AHEAD:
        learning += scoring
        scoring = 0.0
    costs = Costs(
        slots=1,
        alone=1.0,
        learned_token_s=learning / generated,
        scored_token_s=scoring / generated,
        sync_s=fmean(sync),
    )
    ended = SimulatedRun(policy_of(schedule, 1), generation, costs).finish().ended
    return (ended[-1] - ended[0]) / (len(ended) - 1)


def predicted(schedule: str, sync: Path, other: Path) -> dict[str, float]:
    """Compare a run with what one of sync lets expect, by the seconds of a step; of both at least two are needed."""
    before, after = steps_of(sync), steps_of(other)
    simulated = simulated_step_s(schedule, before)
    measured = fmean(step["timing_s/step"] for step in after)
    return {
        "sync_step_s": round(fmean(step["timing_s/step"] for step in before), 3),
        "simulated_step_s": round(simulated, 3),
        "measured_step_s": round(measured, 3),
        "simulated_over_measured": round(simulated / measured, 3),
    }


def prediction(schedule: str, pairs: Iterable[tuple[Path, Path]]) -> dict[str, Any]:
    """Compare pairs of runs, of sync and of another schedule; return what `--json` says of that."""
    found = [predicted(schedule, sync, other) for sync, other in pairs]
    middle = median(pair["simulated_over_measured"] for pair in found)
    by_name = {name: [pair[name] for pair in found] for name in found[0]}
    return {
        "schedule": schedule,
        "pairs": len(found),
        **by_name,
        "median": round(middle, 3),
        "within": abs(middle - 1) <= WITHIN,
    }
