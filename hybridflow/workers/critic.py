"""Critics: a Megatron engine with a scalar head."""

from __future__ import annotations

from torch import Tensor

from hybridflow.batch import Batch
from hybridflow.config.schema import CriticConfig
from hybridflow.engines.megatron.engine import TokenOutputs
from hybridflow.engines.megatron.micro_batches import MicroBatch
from hybridflow.losses.token_loss import TokenLoss
from hybridflow.losses.value_loss import clipped_value_loss
from hybridflow.roles import CriticRole
from hybridflow.tasks.grades import only_learnable
from hybridflow.workers.model_worker import TrainedWorker, tokens_of
from hybridflow.workers.worker import Context, workers


class ValueWorker(TrainedWorker):
    """Value function on one rank."""

    def __init__(self, context: Context, settings: CriticConfig) -> None:
        super().__init__(context, settings, head="value", optimizer=settings.optimizer)

    def learn_values(self, rollout: Batch, old: str, returns: str) -> None:
        """Take an optimizer step on the value loss, averaged over tokens; `old` and `returns` name its columns."""
        rollout = only_learnable(rollout)
        weights = self.token_weights(rollout, "token_mean")
        clip, role = self.context.config.algorithm.value_loss.clip, self.context.role

        def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
            before, targets = (tokens_of(rollout.ragged(name), micro) for name in (old, returns))
            found = clipped_value_loss(outputs.values, before, targets, clip)
            named = {name.replace("critic/", f"{role}/", 1): value for name, value in found.metrics.items()}
            self.record(TokenLoss(found.loss, named))
            return (found.loss * tokens_of(weights, micro)).sum()

        self.learn(rollout, loss)


@workers.register("critic")
class CriticWorker(CriticRole[Batch], ValueWorker):
    """Value function of rewards on one rank."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.critic)

    def compute_values(self, rollout: Batch) -> Batch:
        return self.scored(rollout, "values", "values")

    def update_critic(self, rollout: Batch) -> None:
        self.learn_values(rollout, "values", "returns")
