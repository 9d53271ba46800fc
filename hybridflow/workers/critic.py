"""The critic: a Megatron engine with a scalar head."""

from __future__ import annotations

from torch import Tensor

from hybridflow.batch import Batch
from hybridflow.engines.megatron.engine import TokenOutputs
from hybridflow.engines.megatron.packing import MicroBatch
from hybridflow.losses.value import clipped_value_loss
from hybridflow.roles import CriticRole
from hybridflow.workers.base import Context, workers
from hybridflow.workers.model import TrainedWorker, tokens_of


@workers.register("critic")
class CriticWorker(CriticRole[Batch], TrainedWorker):
    """The value function on one rank."""

    def __init__(self, context: Context) -> None:
        settings = context.config.critic
        super().__init__(context, settings, head="value", optimizer=settings.optimizer)

    def compute_values(self, rollout: Batch) -> Batch:
        """See `CriticRole`."""
        return self.scored(rollout, "values", "values")

    def update_critic(self, rollout: Batch) -> None:
        """See `CriticRole`. The loss is averaged over tokens."""
        weights = self.token_weights(rollout, "token_mean")
        clip = self.context.config.algorithm.value_loss.clip

        def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
            old, returns = (tokens_of(rollout.ragged(name), micro) for name in ("values", "returns"))
            found = clipped_value_loss(outputs.values, old, returns, clip)
            self.record(found)
            return (found.loss * tokens_of(weights, micro)).sum()

        self.learn(rollout, loss)
