"""The actor: an engine that learns and an engine that generates, in one process (the 3D-HybridEngine)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.batch.weight_versions import WEIGHT_VERSION, largest_lag, refuse_other_tokens, row_lags
from hybridflow.config.auto_settings import may_sample_behind
from hybridflow.config.schedule_settings import learns_in_parts
from hybridflow.engines.base import TrainingEngine
from hybridflow.engines.outputs import LossShare
from hybridflow.engines.sampling import FinishedRow
from hybridflow.observe.disk_errors import writing
from hybridflow.resharding.refit import Refit
from hybridflow.roles import ActorRole
from hybridflow.workers.advantage import AdvantageWorker
from hybridflow.workers.generation_worker import (
    GeneratingWorker,
    actor_shardings,
    identifies,
    make_generator,
    make_loop,
    report_taken,
)
from hybridflow.workers.log_prob_bound import refuse_disagreement
from hybridflow.workers.model_worker import TrainedWorker, set_down
from hybridflow.workers.own_log_probs import NONE_TAKEN, OwnLogProbs, ScoredRows
from hybridflow.workers.worker import Context, workers


@workers.register("actor")
class ActorWorker(ActorRole[Batch], AdvantageWorker, GeneratingWorker, TrainedWorker):
    """Policy on one rank.

    Attributes:
        learns: False for a model that is only to answer: it has no optimizer, and none of its memory.

    Invariant: `version` counts the optimizer steps of these weights, and generation only ever runs on that version.
    """

    learns: ClassVar[bool] = True
    refit: Refit

    def __init__(self, context: Context) -> None:
        config = context.config
        super().__init__(context, config.actor, optimizer=config.actor.optimizer if self.learns else None)
        self.version = 0
        self._taken = NONE_TAKEN
        self.start_generation()

    def start_generation(self) -> None:
        """Make the generation engine and the way of its weights."""
        config = self.context.config
        with set_down([self, *self.context.peers.values()]):
            self.generator = make_generator(self.context)
        self.loop = make_loop(self.context)
        self.refit = Refit(
            actor_shardings(self.context, self.groups.layout, self.groups.layout),
            self.groups,
            self.engine,
            self.dtype,
            method=config.rollout.resharding.value,
            verify=config.rollout.verify_refit,
            identify=identifies(config),
        )

    @property
    def sampling_version(self) -> int:
        return self.version

    def finished(self, prompts: Batch, step: int, changes: dict[str, Any]) -> Iterator[list[FinishedRow]]:
        """Sample with the newest weights. Generation's memory is there until the last row only."""
        # Though a schedule has done so: a flow may learn and sample again within a step, generation may have lost its
        # weights in sleep, and only this rank knows both versions. If they are the same, this compares two numbers.
        self.sync_weights()
        try:
            yield from self.sample(prompts, step, changes)
        finally:
            self.generator.sleep()

    def sync_weights(self) -> None:
        with self.context.timed("refit"):
            if self.generator.version == self.version:
                return
            with super().model_loaded():
                self.refit(self.generator, self.version)
                self.context.metrics.max("refit/training_bytes", self.engine.weight_bytes)
                report_taken(self.context.metrics, self.generator, self.refit)

    @contextmanager
    def model_loaded(self, *, learns: bool = False) -> Iterator[TrainingEngine]:
        """Load the model for one call; generation's memory is not there meanwhile, also if it was synced before."""
        self.release_generation()
        with super().model_loaded(learns=learns) as engine:
            yield engine

    def release_generation(self) -> None:
        """Let generation's weights go, if they wait for a call that samples; that call brings them anew."""
        if self.generator.version is not None:
            self.generator.sleep()

    def compute_log_prob(self, rollout: Batch) -> Batch:
        with self.model_loaded() as engine:
            scores = engine.score(rollout, temperature=self.temperature(rollout))
        if scores is None:
            return Batch()
        log_probs = scores["log_probs"]
        learned = LearnedTokens.of(rollout)
        newest = self._measure(ScoredRows(rollout, learned.pick(log_probs), learned.pick(scores["entropy"])))
        refuse_disagreement(self.context.config, self.engine.shape.vocab, newest, self.engine.global_sums)
        if learns_in_parts(self.context.config.trainer.schedule):
            older = row_lags(rollout.ragged(WEIGHT_VERSION), self.version) > 0
            log_probs = as_sampled(log_probs, rollout.ragged("rollout_log_probs"), older)
        return Batch(old_log_probs=log_probs)

    def take_own_scores(self, own: OwnLogProbs, rows: Batch) -> None:
        """Do as `compute_log_prob` does with its scores, and keep them for `recall_log_probs`."""
        scored = own.scored(rows)
        newest = self._measure(scored)
        refuse_disagreement(self.context.config, self.engine.shape.vocab, newest, self.groups.sums_of_outputs)
        self._taken = own.taken(scored)

    def recall_log_probs(self, rows: Batch) -> Batch:
        return Batch(old_log_probs=self._taken.of_rows(rows))

    def _measure(self, scored: ScoredRows) -> np.ndarray:
        """Measure how far apart the two engines are, and the lag of the versions that sampled the rows.

        Return how far, [tokens that the newest weights sampled], in nats at a temperature of 1 or more.
        """
        rows = scored.rows
        metrics = self.context.metrics
        metrics.mean("actor/entropy", scored.entropy.sum(), len(scored.entropy))
        runs = rows.ragged(WEIGHT_VERSION)
        refuse_other_tokens(runs, rows.lengths("response_ids"))
        lags = row_lags(runs, self.version)
        metrics.mean("rollout/version_lag_mean", lags.sum(), len(runs))
        metrics.max("rollout/version_lag_max", largest_lag(runs, self.version))
        if "rollout_log_probs" not in rows:
            return np.zeros(0)
        learned = LearnedTokens.of(rows)
        differences = np.abs(scored.log_probs - learned.pick(rows.ragged("rollout_log_probs")))
        metrics.mean("actor/rollout_log_prob_diff_mean", differences.sum(), len(differences))
        metrics.max("actor/rollout_log_prob_diff_max", differences.max(initial=0.0))
        # A low temperature stretches logits, and how far they are apart with them.
        cooled = differences * np.repeat(np.minimum(self.temperature(rows), 1.0), learned.lengths)
        newest: np.ndarray = cooled[np.repeat(lags == 0, learned.lengths)]
        return newest

    def expect_first_update(self, rows: Batch) -> None:
        """Raise RuntimeError for rows of older weights; where a schedule samples behind, such rows say nothing."""
        older = float((row_lags(rows.ragged(WEIGHT_VERSION), self.version) > 0).sum())
        (count,) = self.engine.global_sums(older)
        if count and not may_sample_behind(self.context.config):
            raise RuntimeError(
                f"{count:.0f} rows without old_log_probs were sampled by weights that have been updated since, so this "
                "update's own log-probs are not those of the policy that the step began with. Score the rows before "
                "the first update, rollout |= self.actor.compute_log_prob(rollout), or name the loss among the "
                "algorithm's `losses`, and self.minibatches does it where it is needed"
            )

    def update_policy(self, rows: Batch, loss: str, **options: Any) -> None:
        self.update(rows, loss, **options)

    def learn(self, batch: Batch, loss: LossShare, **options: Any) -> bool:
        """Count an optimizer step as a version of the weights, one that is skipped too; one that is refused is none."""
        had_rows = super().learn(batch, loss, **options)
        self.version += 1
        return had_rows

    def save_model(self, folder: str) -> None:
        with writing(Path(folder)), self.model_loaded() as engine:
            engine.export(folder)

    def state(self) -> dict[str, Any]:
        """Return the weight version, and what reward shapings remember, if anything."""
        shaped = {"reward_shapings": self.shaping_states} if any(self.shaping_states.values()) else {}
        return {"weight_version": self.version, **shaped}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the version. Generation has no weights, or lets go of what it had, so its next call refits."""
        self.release_generation()
        self.version = state["weight_version"]
        self.shaping_states.update(state.get("reward_shapings", {}))


def as_sampled(scored: Ragged, sampled: Ragged, older: np.ndarray) -> Ragged:
    """Return log-probs by the weights that a step began with: of rows that `older` ones sampled, generation's.

    A step that is learned from in parts has learned from some rows before others are scored; the policy that those are
    compared with is nevertheless the one that the step began with.
    """
    values = np.where(np.repeat(older, scored.lengths), sampled.values, scored.values)
    return Ragged(values.astype(scored.values.dtype), scored.offsets)


@workers.register("frozen_actor")
class FrozenActorWorker(ActorWorker):
    """Policy that is evaluated: it scores and samples, and cannot learn."""

    learns = False
