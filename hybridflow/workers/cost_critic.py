"""The critic of costs."""

from __future__ import annotations

from hybridflow.batch import Batch
from hybridflow.roles import CostCriticRole
from hybridflow.workers.critic import ValueWorker
from hybridflow.workers.worker import Context, workers


@workers.register("cost_critic")
class CostCriticWorker(CostCriticRole[Batch], ValueWorker):
    """Value function of costs on one rank."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.cost_critic)

    def compute_cost_values(self, rollout: Batch) -> Batch:
        return self.scored(rollout, "values", "cost_values")

    def update_cost_critic(self, rollout: Batch) -> None:
        self.update(rollout, "cost_value")
