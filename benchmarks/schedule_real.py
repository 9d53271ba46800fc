"""Short runs of 1 + 1 ranks, each pinned to a core of its own, that a simulation's prediction is compared with."""

from __future__ import annotations

from typing import Any

from benchmarks.schedule_prediction import prediction
from benchmarks.short_runs import short_runs

SCHEDULES = ("one_step_off", "async")
# A step has as many rows as generation advances at once. No step is saved, written out or validated in between.
SETTINGS = (
    "experiment=addition", "algorithm=grpo", "algorithm.prompts_per_step=64", "algorithm.samples_per_prompt=8",
    "rollout.max_concurrent_rows=512", "plugins=[benchmarks.pinned_ranks]", "actor.model.path=models/addition",
    "actor.parallel.tensor=1", "placement=rollout_pool", "placement.pools={train: 1, rollout: 1}", "trainer.steps=12",
    "trainer.validate_every=0", "trainer.validation_prompts=8", "trainer.log_rollouts_every=0",
    "trainer.stop_at_accuracy=null", "algorithm.policy_loss.entropy_coef=0.01",
)  # fmt: skip


def predictions(pairs: int, schedules: tuple[str, ...] = SCHEDULES) -> list[dict[str, Any]]:
    """Run sync and the other schedules in turn, so many times; compare each run with what the sync before it says."""
    with short_runs() as runs:
        rounds = [
            {
                schedule: runs.run("train", f"{schedule}_{seed}", *SETTINGS, f"trainer.schedule={schedule}",
                                   f"run.seed={seed}")
                for schedule in ("sync", *schedules)
            }
            for seed in range(1, pairs + 1)
        ]  # fmt: skip
        return [prediction(schedule, [(made["sync"], made[schedule]) for made in rounds]) for schedule in schedules]
