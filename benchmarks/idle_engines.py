"""Plugin with engines that compute nothing: what is left of a step's time is the framework's own.

They take and give rows as engines do, each at once: responses of the most tokens that sampling allows, scores and
values of 0. Weights are those of the model's shape, so that a weight sync moves them; no optimizer changes them. Ranks
are data parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.config.schema import ModelConfig, RolloutConfig, TrainedRoleConfig
from hybridflow.engines import base
from hybridflow.engines.outputs import LossShare, StepResult, TokenOutputs
from hybridflow.engines.sampling import LENGTH, FinishedRow, Sampling
from hybridflow.engines.sharding import TensorSharding
from hybridflow.engines.weight_readings import WeightReadings
from hybridflow.models import Head, Weight, read_shape
from hybridflow.parallel.layout import Coordinate, Layout
from tests.engines.transformers_engine import TransformersGeneration, TransformersTraining, micro_batches

NAME = "idle"
MICRO_ROWS = 128
FINISHED_TOGETHER = 64


class IdleTrainer(base.TrainingEngine):
    """Weights of zeros, and scores of 0."""

    def __init__(self, folder: str, groups: Any, head: Head) -> None:
        self.groups = groups
        self.shape = read_shape(folder)
        self.sharding = TensorSharding(self.shape, head=head)
        self._weights = {weight.name: torch.zeros(weight.shape) for weight in self.sharding.weights(Coordinate())}

    def score(self, batch: Batch, *, temperature: np.ndarray | None = None) -> dict[str, Ragged]:
        learned = LearnedTokens.of(batch)
        names = ("values",) if self.sharding.head is Head.value else ("log_probs", "entropy")
        return {name: learned.spread(np.zeros(int(learned.lengths.sum()), np.float32)) for name in names}

    def score_rows(self, batch: Batch) -> np.ndarray:
        return np.zeros(len(batch), np.float32)

    def train(
        self,
        batch: Batch,
        loss: LossShare,
        *,
        rows_per_unit: int = 1,
        temperature: np.ndarray | None = None,
        before_step: Callable[[], None] | None = None,
    ) -> StepResult:
        for micro in micro_batches(batch, rows_per_unit, MICRO_ROWS):
            numbers = torch.zeros(len(micro.targets))
            loss(TokenOutputs(numbers, numbers, numbers, torch.zeros(len(micro.rows))), micro)
        if before_step is not None:
            before_step()
        return StepResult(True, 1.0, 0.0)

    def shard(self, weight: Weight) -> Any:
        return self._weights[weight.name]

    @property
    def weight_bytes(self) -> int:
        return sum(weight.nbytes for weight in self._weights.values())

    def export(self, folder: str | Path) -> None:
        raise NotImplementedError("there is nothing to export of an engine that computes nothing")

    def save(self, folder: Path, extra: Mapping[str, Any]) -> None:
        raise NotImplementedError("there is nothing to save of an engine that computes nothing")

    def load(self, folder: Path) -> dict[str, Any]:
        raise NotImplementedError("an engine that computes nothing saves nothing")

    def offload(self, *, weights: bool, optimizer: bool) -> None:
        """They stay where they are."""

    def onload(self, *, optimizer: bool) -> None:
        """They are there."""


class IdleGenerator(base.GenerationEngine):
    """Responses of one token again and again, as long as they may be."""

    def __init__(self, folder: str) -> None:
        self.version: int | None = None
        self._weights: dict[str, Any] = {}

    def update_weights(
        self, shards: Iterator[tuple[str, Any]], version: int, *, readings: WeightReadings | None = None
    ) -> None:
        for name, shard in shards:
            self._weights[name] = shard.clone()
            if readings:
                readings.read(name, self._weights[name])
        self.version = version

    def stream(self, prompts: Ragged, sampling: Sampling, seeds: Sequence[int]) -> Iterator[list[FinishedRow]]:
        tokens = np.full(sampling.max_tokens, 2, np.int64)
        log_probs = np.zeros(sampling.max_tokens, np.float32)
        for first in range(0, len(prompts), FINISHED_TOGETHER):
            rows = range(first, min(first + FINISHED_TOGETHER, len(prompts)))
            yield [FinishedRow(row, tokens, log_probs, LENGTH, 0) for row in rows]

    def sleep(self) -> None:
        """Its weights stay."""

    @property
    def weight_bytes(self) -> int:
        return sum(weight.nbytes for weight in self._weights.values())


@base.training_engines.register(NAME)
class IdleTraining(TransformersTraining):
    """Data parallelism only."""

    @classmethod
    def build(cls, settings: TrainedRoleConfig, groups: Any, **options: Any) -> IdleTrainer:  # type: ignore[override]
        return IdleTrainer(settings.model.path, groups, options["head"])


@base.generation_engines.register(NAME)
class IdleGeneration(TransformersGeneration):
    """One rank a replica."""

    @classmethod
    def build(  # type: ignore[override]
        cls, model: ModelConfig, layout: Layout, rollout: RolloutConfig, **options: Any
    ) -> IdleGenerator:
        return IdleGenerator(model.path)
