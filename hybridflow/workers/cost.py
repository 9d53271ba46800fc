"""The cost: a grader of what responses should not be. Light: no model, no torch."""

from __future__ import annotations

from hybridflow.batch import Batch
from hybridflow.roles import CostRole
from hybridflow.workers.grading_worker import GradingWorker
from hybridflow.workers.worker import Context, workers


@workers.register("cost")
class CostWorker(CostRole[Batch], GradingWorker):
    """Grades this rank's rows."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.cost)

    def compute_cost(self, rollout: Batch) -> Batch:
        return Batch(costs=self.graded(rollout))
