"""Reward and cost models: one that learns from preferences, and those that score the rollouts of an algorithm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hybridflow.batch import Batch
from hybridflow.losses.loss import LossInputs
from hybridflow.models import Head
from hybridflow.observe.disk_errors import writing
from hybridflow.roles import GradedModelRewardRole, ModelCostRole, ModelRewardRole, RewardModelRole
from hybridflow.workers.model_worker import ModelWorker, TrainedWorker, pair_columns
from hybridflow.workers.preference_pairs import sides
from hybridflow.workers.reward import RewardWorker
from hybridflow.workers.worker import GRADED_MODEL, Context, workers


@workers.register("reward_model")
class RewardModelWorker(RewardModelRole[Batch], TrainedWorker):
    """Reward or cost model that learns, on one rank."""

    def __init__(self, context: Context) -> None:
        settings = context.config.reward_model
        super().__init__(context, settings, head=Head.reward, optimizer=settings.optimizer)

    def update_reward_model(self, pairs: Batch) -> None:
        self.update(pairs, "pairs")

    def compare(self, pairs: Batch) -> None:
        with self.model_loaded() as engine:
            scores = engine.score_rows(sides(pairs))
        if scores is not None:
            loss = self.make_loss("pairs")
            tensor_scores = torch.from_numpy(scores)
            none = tensor_scores.new_zeros(0)
            columns = pair_columns(loss, pairs, np.arange(len(pairs)))
            self.record(loss.token_loss(LossInputs(none, none, none, none, tensor_scores, columns)))

    def save_model(self, folder: str) -> None:
        with writing(Path(folder)), self.model_loaded() as engine:
            engine.export(folder)


class ScoringWorker(ModelWorker):
    """Frozen reward model on one rank."""

    def scores(self, rollout: Batch, column: str) -> Batch:
        """Return the score of each row as a column, on the ranks that have it."""
        with self.model_loaded() as engine:
            scores = engine.score_rows(rollout)
        return Batch() if scores is None else Batch(**{column: scores})


@workers.register("model")
class ModelRewardWorker(ModelRewardRole[Batch], ScoringWorker):
    """Frozen reward model as the role `reward`."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.reward, head=Head.reward)

    def compute_reward(self, rollout: Batch) -> Batch:
        return self.scores(rollout, "rewards")

    def compute_baseline(self, greedy: Batch) -> Batch:
        scores = self.scores(greedy, "baseline_rewards")
        lengths = Batch(baseline_lengths=greedy.ragged("response_ids").lengths)
        return scores | lengths if scores.columns else scores  # on the ranks that have scores


@workers.register(GRADED_MODEL)
class GradedModelRewardWorker(GradedModelRewardRole[Batch], ScoringWorker):
    """Frozen reward model as one of several graders. Of the ranks that have a row's score one asks the others."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.reward, head=Head.reward)
        self._graders = RewardWorker(context)

    def close(self) -> None:
        """End the process that grades. It ends with this one anyway."""
        self._graders.close()

    def compute_reward(self, rollout: Batch) -> Batch:
        scored = self._scores_to_give(rollout)
        return self._graders.rewards(rollout, scored.dense("rewards")) if scored.columns else scored

    def compute_baseline(self, greedy: Batch) -> Batch:
        scored = self._scores_to_give(greedy)
        return self._graders.baseline(greedy, scored.dense("rewards")) if scored.columns else scored

    def _scores_to_give(self, rows: Batch) -> Batch:
        scored = self.scores(rows, "rewards")
        return scored if self.context.rank in self.context.layout.output_ranks else Batch()


@workers.register("cost_model")
class ModelCostWorker(ModelCostRole[Batch], ScoringWorker):
    """Frozen cost model as the role `cost`."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.cost, head=Head.reward)

    def compute_cost(self, rollout: Batch) -> Batch:
        return self.scores(rollout, "costs")
