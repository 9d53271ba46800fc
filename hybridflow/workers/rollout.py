"""Generation on a pool of its own, and the actor whose weights it generates with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hybridflow.batch import Batch
from hybridflow.engines.sampling import FinishedRow
from hybridflow.parallel.layout import Layout
from hybridflow.resharding.pool_link import connect
from hybridflow.resharding.pool_refit import PoolRefit, WeightSender
from hybridflow.roles import SamplingChanges
from hybridflow.roles.rollout import LendingActorRole, PacedRole, RolloutRole, TrainingActorRole
from hybridflow.workers.actor import ActorWorker
from hybridflow.workers.generation_worker import (
    GeneratingWorker,
    actor_shardings,
    identifies,
    make_generator,
    make_loop,
    report_taken,
)
from hybridflow.workers.model_worker import torch_dtype
from hybridflow.workers.rollout_loop import RolloutLoop
from hybridflow.workers.worker import Context, workers


class LinkedActorWorker(TrainingActorRole[Batch], ActorWorker):
    """Actor that sends its weights to another pool."""

    def connect(self, meeting: str, training: Layout, generation: Layout) -> None:
        config = self.context.config
        link = connect(meeting, training, generation, self.context.rank, config.trainer.collective_timeout_s)
        shardings = actor_shardings(self.context, training, generation)
        self.sender = WeightSender(shardings, link, self.engine, self.dtype, verify=config.rollout.verify_refit)

    def report_version(self, rank_ids: Batch) -> Batch:
        return Batch(version=np.full(len(rank_ids), self.version, dtype=np.int64))

    def send_weights(self, rollout_versions: Batch) -> None:
        first = self.sender.link.training.size
        versions = rollout_versions.dense("version").tolist()
        with self.context.timed("refit_sending"):
            if all(version == self.version for version in versions):
                return  # a call that samples asks for weights that a schedule has given already
            with self.model_loaded():
                if self.sender({first + rank: version for rank, version in enumerate(versions)}, self.version):
                    self.context.metrics.max("refit/peak_bytes_sending", self.sender.peak_bytes)
                    self.context.metrics.max("refit/training_bytes", self.engine.weight_bytes)


@workers.register("training_actor")
class TrainingActorWorker(LinkedActorWorker):
    """Actor without a generation engine of its own."""

    def start_generation(self) -> None:
        """Start none."""

    def release_generation(self) -> None:
        """Release nothing: generation has memory of its own."""


class PacedWorker(PacedRole[Batch], GeneratingWorker):
    """Worker whose rows may be under way over many calls.

    Attributes:
        rollouts: these rows.
    """

    rollouts: RolloutLoop

    def advance_rollouts(
        self,
        rows: Batch | None,
        *,
        engine_steps: int,
        stop: Sequence[int] = (),
        step: int = 0,
        sampling: SamplingChanges | None = None,
    ) -> Batch:
        with self.context.timed("generate"):
            self.rollouts.stop(stop)
            if rows is not None:
                self.rollouts.take_up(rows, step, {**(sampling or {})})
            return self.rollouts.go_on(engine_steps)


@workers.register("lending_actor")
class LendingActorWorker(LendingActorRole[Batch], PacedWorker, LinkedActorWorker):
    """Actor with a generation engine besides, which sleeps while it learns, as where there is no other pool.

    Rows under way rest meanwhile: what they have by then is kept, and their keys and values are computed again.
    """

    def start_generation(self) -> None:
        super().start_generation()
        self.rollouts = RolloutLoop(self.generator, self.context, self.loop)

    def connect(self, meeting: str, training: Layout, generation: Layout) -> None:
        super().connect(meeting, training, generation)
        self.rollouts.close()  # whoever asked for those rows begins anew
        self.release_generation()  # without a version it would not be known to have memory
        self.generator.version = None  # after a failure the same version may be of other weights

    def advance_rollouts(self, rows: Batch | None, **options: Any) -> Batch:
        self.sync_weights()
        return super().advance_rollouts(rows, **options)

    def sync_weights(self) -> None:
        with self.rollouts.renewing(self.version):
            super().sync_weights()

    def rest_rollouts(self) -> None:
        self.release_generation()

    def release_generation(self) -> None:
        with self.rollouts.resting():
            super().release_generation()


@workers.register("rollout")
class RolloutWorker(RolloutRole[Batch], PacedWorker):
    """Generation engine on one rank. Its memory is its own, so it never sleeps after its first weights."""

    refit: PoolRefit

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.generator = make_generator(context)
        self.loop = make_loop(context)
        self.rollouts = RolloutLoop(self.generator, context, self.loop)

    def connect(self, meeting: str, training: Layout, generation: Layout) -> None:
        config = self.context.config
        rank = training.size + self.context.rank
        link = connect(meeting, training, generation, rank, config.trainer.collective_timeout_s)
        dtype = torch_dtype(config.actor.model.dtype.value)
        shardings = actor_shardings(self.context, training, generation)
        self.refit = PoolRefit(shardings, link, dtype, verify=config.rollout.verify_refit, identify=identifies(config))
        self.rollouts.close()  # whoever asked for those rows begins anew
        self.generator.version = None  # whoever meets again may have other weights of that version

    def report_version(self, rank_ids: Batch) -> Batch:
        return Batch(version=np.full(len(rank_ids), self.sampling_version, dtype=np.int64))

    def receive_weights(self, offered: Batch) -> None:
        version = int(offered.dense("version")[0])
        with self.context.timed("refit"), self.rollouts.renewing(version):
            if self.refit(self.generator, version):
                report_taken(self.context.metrics, self.generator, self.refit)

    def finished(self, prompts: Batch, step: int, changes: dict[str, Any]) -> Iterator[list[FinishedRow]]:
        return self.sample(prompts, step, changes)

    @property
    def sampling_version(self) -> int:
        """Version of the weights that sample; -1: there are none, and generation refuses to start."""
        return -1 if self.generator.version is None else self.generator.version
