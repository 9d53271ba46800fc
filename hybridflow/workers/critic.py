"""Critics: a training engine whose model has a scalar head."""

from __future__ import annotations

from hybridflow.batch import Batch
from hybridflow.config.schema import CriticConfig
from hybridflow.models import Head
from hybridflow.roles import CriticRole
from hybridflow.workers.model_worker import TrainedWorker
from hybridflow.workers.worker import Context, workers


class ValueWorker(TrainedWorker):
    """Value function on one rank."""

    def __init__(self, context: Context, settings: CriticConfig) -> None:
        super().__init__(context, settings, head=Head.value, optimizer=settings.optimizer)


@workers.register("critic")
class CriticWorker(CriticRole[Batch], ValueWorker):
    """Value function of rewards on one rank."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.critic)

    def compute_values(self, rollout: Batch) -> Batch:
        return self.scored(rollout, "values", "values")

    def update_critic(self, rollout: Batch) -> None:
        self.update(rollout, "value")
