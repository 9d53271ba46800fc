"""What the ranks of test_disaggregated run: the true refit between two pools, with no engine on either side."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.weight_versions import one_run
from hybridflow.dispatch import using
from hybridflow.models import Weight
from hybridflow.parallel.layout import Layout
from hybridflow.resharding.pool_link import connect
from hybridflow.resharding.pool_refit import PoolRefit, WeightSender
from hybridflow.roles import roles
from hybridflow.roles.role import Role
from hybridflow.roles.rollout import RolloutRole, TrainingActorRole
from hybridflow.workers import Worker
from tests.resharding.plan.simulate import SHAPE, shardings

# A message that never comes is an error after this long: no ending may wait for it.
TIMEOUT_S = 120.0
BUCKET_BYTES = 4096


class Mortal(Role, Worker):
    """Its process dies where it is told to."""

    light = True
    end: tuple[str, int] = "", -1
    trained = 0

    @using("one_to_all")
    def pid(self) -> Any:
        return os.getpid()

    @using("one_to_all")
    def learn(self, at: str, rank: int) -> None:
        """There are new weights; die there on that rank, on the way of these."""
        self.trained += 1
        self.end = at, rank

    def reach(self, place: str) -> None:
        if self.end == (place, self.context.rank):
            time.sleep(0.2)  # for the reports of calls that have ended to get away
            os.kill(os.getpid(), signal.SIGKILL)


@roles.register("giver")
class Giver(TrainingActorRole[Batch], Mortal):
    """A training rank that has every weight whole."""

    def connect(self, meeting: str, training: Layout, generation: Layout) -> None:
        link = connect(meeting, training, generation, self.context.rank, TIMEOUT_S)
        self.giving = WeightSender(
            shardings(SHAPE, training, generation), link, self, torch.float32, bucket_bytes=BUCKET_BYTES
        )

    def shard(self, weight: Weight) -> Tensor:
        """A refit is under way when the last layer is asked for."""
        if weight.place == SHAPE.layers - 1:
            self.reach("give")
        return torch.ones(weight.shape)

    def report_version(self, rank_ids: Batch) -> Batch:
        return Batch(version=np.full(len(rank_ids), self.trained, dtype=np.int64))

    def send_weights(self, held: Batch) -> None:
        first = self.giving.link.training.size
        self.giving({first + rank: int(v) for rank, v in enumerate(held.dense("version"))}, self.trained)


@roles.register("taker")
class Taker(RolloutRole[Batch], Mortal):
    """A rollout rank that drops the weights it takes, and says one token."""

    version: int | None = None

    def connect(self, meeting: str, training: Layout, generation: Layout) -> None:
        link = connect(meeting, training, generation, training.size + self.context.rank, TIMEOUT_S)
        self.refit = PoolRefit(shardings(SHAPE, training, generation), link, torch.float32, bucket_bytes=BUCKET_BYTES)

    def report_version(self, rank_ids: Batch) -> Batch:
        return Batch(version=np.full(len(rank_ids), -1 if self.version is None else self.version, dtype=np.int64))

    def receive_weights(self, offered: Batch) -> None:
        self.refit(self, int(offered.dense("version")[0]))

    def update_weights(self, shards: Iterator[tuple[str, Tensor]], version: int, **options: Any) -> None:
        for name, _ in shards:
            if f".{SHAPE.layers - 1}." in name:
                self.reach("take")
        self.version = version

    def generate_sequences(self, prompts: Batch, *, step: int = 0, **sampling: Any) -> Batch:
        self.reach("generate")
        rows = len(prompts)
        return Batch(
            response_ids=Ragged.of([[7]] * rows, np.int64),
            rollout_log_probs=Ragged.of([[-1.0]] * rows, np.float32),
            finish_reason=np.array(["end"] * rows, dtype=object),
            truncated=np.zeros(rows, dtype=bool),
            weight_version=one_run(self.version or 0, np.ones(rows, dtype=np.int64)),
            sampling_temperature=np.ones(rows, dtype=np.float32),
        )
