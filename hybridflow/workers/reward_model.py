"""The reward model: one that learns from preferences, and one that scores the rollouts of an algorithm."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hybridflow.batch import Batch, Ragged
from hybridflow.engines.megatron.engine import TokenOutputs
from hybridflow.engines.megatron.packing import MicroBatch
from hybridflow.losses.preference import bradley_terry
from hybridflow.losses.token_loss import TokenLoss
from hybridflow.roles import ModelRewardRole, RewardModelRole
from hybridflow.workers.base import Context, workers
from hybridflow.workers.model import ModelWorker, TrainedWorker


@workers.register("reward_model")
class RewardModelWorker(RewardModelRole[Batch], TrainedWorker):
    """A reward model that learns, on one rank."""

    def __init__(self, context: Context) -> None:
        settings = context.config.reward_model
        super().__init__(context, settings, head="reward", optimizer=settings.optimizer)

    def update_reward_model(self, pairs: Batch) -> None:
        """See `RewardModelRole`. Both sides of a pair are in one micro-batch, so its gradient is exact."""
        total, rows = self.engine.global_sums(float(len(pairs)))[0], sides(pairs)

        def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
            found = compared(outputs.scores)
            self.record(found)
            return found.loss.sum() / total

        self.learn(rows, loss, together=2)
        tokens = rows.ragged("prompt_ids").lengths.sum() + rows.ragged("response_ids").lengths.sum()
        self.context.metrics.total("perf/trained_tokens", tokens)

    def compare(self, pairs: Batch) -> None:
        """See `RewardModelRole`."""
        with self.turn() as engine:
            scores = engine.score_rows(sides(pairs))
        if scores is not None:
            self.record(compared(torch.from_numpy(scores)))

    def save_model(self, folder: str) -> None:
        """See `RewardModelRole`."""
        with self.turn() as engine:
            engine.export(folder)


@workers.register("model")
class ModelRewardWorker(ModelRewardRole[Batch], ModelWorker):
    """A frozen reward model as the role `reward`, on one rank."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.reward, head="reward")

    def compute_reward(self, rollout: Batch) -> Batch:
        """See `ModelRewardRole`."""
        with self.turn() as engine:
            scores = engine.score_rows(rollout)
        if scores is None:
            return Batch()
        self.context.metrics.mean("reward/mean", scores.sum(), len(scores))
        return Batch(rewards=scores)


def sides(pairs: Batch) -> Batch:
    """[P] pairs as [2 P] rows: of each pair the chosen response, then the rejected one."""
    chosen, rejected = pairs.ragged("response_ids"), pairs.ragged("rejected_ids")
    responses = [side for pair in zip(chosen, rejected, strict=True) for side in pair]
    prompts = pairs.ragged("prompt_ids").select(np.repeat(np.arange(len(pairs)), 2))
    return Batch(prompt_ids=prompts, response_ids=Ragged.of(responses, np.int64))


def compared(scores: Tensor) -> TokenLoss:
    """The loss of each pair, from the [2 P] scores of its sides."""
    return bradley_terry(scores[::2], scores[1::2])
