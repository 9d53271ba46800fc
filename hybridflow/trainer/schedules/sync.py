"""Synchronous schedule: one step after the other."""

from __future__ import annotations

from hybridflow.algorithms.algorithm import made_rows
from hybridflow.algorithms.schedule import Schedule, schedules
from hybridflow.algorithms.step_context import StepContext
from hybridflow.batch import BatchRef


@schedules.register("sync")
class SyncSchedule(Schedule):
    """Samples with the newest weights, and has learned from all of it before the next step begins.

    Nothing is sampled from older weights unless the algorithm itself takes several optimizer steps on its rows.
    """

    lends = True

    def take_step(self, context: StepContext) -> BatchRef:
        self.steps.begin_step(context.step_index)
        self.algorithm.begin_step(context)
        prompts = context.next_prompts()
        self.sync_weights()
        # Not `learn(rollout(prompts))`: that is what `step` does, unless a class writes the whole flow as one method.
        return made_rows(self.algorithm, self.algorithm.step(prompts))
