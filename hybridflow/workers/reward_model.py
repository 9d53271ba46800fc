"""Reward and cost models: one that learns from preferences, and those that score the rollouts of an algorithm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hybridflow.batch import Batch
from hybridflow.engines.megatron.engine import TokenOutputs
from hybridflow.engines.megatron.micro_batches import MicroBatch
from hybridflow.losses.preference_losses import columns_of, pair_losses
from hybridflow.losses.token_loss import TokenLoss
from hybridflow.observe.disk_errors import writing
from hybridflow.roles import ModelCostRole, ModelRewardRole, RewardModelRole
from hybridflow.workers.model_worker import ModelWorker, TrainedWorker, tensor
from hybridflow.workers.preference_pairs import sides
from hybridflow.workers.worker import Context, workers


@workers.register("reward_model")
class RewardModelWorker(RewardModelRole[Batch], TrainedWorker):
    """Reward or cost model that learns, on one rank."""

    def __init__(self, context: Context) -> None:
        settings = context.config.reward_model
        super().__init__(context, settings, head="reward", optimizer=settings.optimizer)

    def update_reward_model(self, pairs: Batch) -> None:
        """Take an optimizer step on pairs. Both sides of a pair are in one micro-batch, so its gradient is exact."""
        total, rows = self.engine.global_sums(float(len(pairs)))[0], sides(pairs)

        def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
            found = self._compared(outputs.scores, pairs, micro.rows[::2] // 2)
            self.record(found)
            return found.loss.sum() / total

        self.learn(rows, loss, rows_per_unit=2)

    def compare(self, pairs: Batch) -> None:
        with self.model_loaded() as engine:
            scores = engine.score_rows(sides(pairs))
        if scores is not None:
            self.record(self._compared(torch.from_numpy(scores), pairs, np.arange(len(pairs))))

    def save_model(self, folder: str) -> None:
        with writing(Path(folder)), self.model_loaded() as engine:
            engine.export(folder)

    def _compared(self, scores: Tensor, pairs: Batch, at: np.ndarray) -> TokenLoss:
        """Return the loss of each pair, from the [2 P] scores of the sides of those pairs."""
        name = self.context.config.algorithm.pair_loss
        columns = {column: tensor(pairs.dense(column)[at]).to(scores.device) for column in columns_of(name)}
        return pair_losses.get(name)(scores[::2], scores[1::2], **columns)


class ScoringWorker(ModelWorker):
    """Frozen reward model on one rank."""

    def scores(self, rollout: Batch, column: str) -> Batch:
        """Return the score of each row as a column, on the ranks that have it."""
        with self.model_loaded() as engine:
            found = engine.score_rows(rollout)
        return Batch() if found is None else Batch(**{column: found})


@workers.register("model")
class ModelRewardWorker(ModelRewardRole[Batch], ScoringWorker):
    """Frozen reward model as the role `reward`."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.reward, head="reward")

    def compute_reward(self, rollout: Batch) -> Batch:
        return self.scores(rollout, "rewards")

    def compute_baseline(self, greedy: Batch) -> Batch:
        found = self.scores(greedy, "baseline_rewards")
        lengths = Batch(baseline_lengths=greedy.ragged("response_ids").lengths)
        return found | lengths if found.columns else found  # on the ranks that have scores


@workers.register("cost_model")
class ModelCostWorker(ModelCostRole[Batch], ScoringWorker):
    """Frozen cost model as the role `cost`."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.cost, head="reward")

    def compute_cost(self, rollout: Batch) -> Batch:
        return self.scores(rollout, "costs")
