"""What the simulation says of a run before it is made, from a run of sync.

Of each step of sync it takes how long generation, a weight sync and all else took, and simulates a schedule that begins
whole steps ahead on pools of their own. What a run of that schedule took is then compared with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hybridflow.placement.simulated_run import Costs, SimulatedRun
from hybridflow.scheduling import policy_of


def steps_of(folder: Path) -> list[dict[str, float]]:
    """Return the metrics of a run's steps, but for the first, in which everything is made that is kept."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if "timing_s/step" in line][1:]


def simulated_seconds(steps: list[dict[str, float]], max_staleness: int) -> float:
    """Simulate a schedule of whole steps; a prompt stands for a step, and its length is the seconds of generation."""
    generation = np.array([[step["timing_s/generate"]] for step in steps])
    sync = np.array([step.get("timing_s/refit", 0.0) for step in steps])
    rest = sum(step["timing_s/step"] for step in steps) - float(generation.sum() + sync.sum())
    costs = Costs(slots=1, alone=1.0, learned_token_s=rest / float(generation.sum()), sync_s=float(sync.mean()))
    policy = policy_of("one_step_off", 1, max_staleness=max_staleness)
    return float(SimulatedRun(policy, generation, costs).finish().seconds)


def prediction(sync: Path, other: Path, max_staleness: int = 1) -> dict[str, Any]:
    """Compare a run with what one of sync lets expect, by the seconds of a step; of both at least two are needed."""
    before, after = steps_of(sync), steps_of(other)
    simulated = simulated_seconds(before, max_staleness) / len(before)
    measured = sum(step["timing_s/step"] for step in after) / len(after)
    return {
        "sync_step_s": sum(step["timing_s/step"] for step in before) / len(before),
        "simulated_step_s": simulated,
        "measured_step_s": measured,
        "simulated_over_measured": round(simulated / measured, 3),
    }
