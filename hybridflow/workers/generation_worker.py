"""Base of workers that generate: an engine as the settings say, and a call of it with what it measures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.weight_versions import one_run, sampled_runs
from hybridflow.config.schema import Config, FullDisk, RolloutRecovery
from hybridflow.dispatch import Streamed
from hybridflow.engines.base import GenerationEngine, generation_engines, make_shardings
from hybridflow.engines.row_seeds import row_seeds
from hybridflow.engines.sampling import FinishedRow, Generated, Sampling
from hybridflow.engines.sharding import Shardings
from hybridflow.environments.conversation import Record
from hybridflow.models import read_shape
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout
from hybridflow.resharding.refit import WeightUpdate
from hybridflow.roles import SamplingChanges
from hybridflow.roles.builtin_roles import GeneratingRole
from hybridflow.tasks.tokenizer import end_ids
from hybridflow.workers.rollout_journal import SUFFIX, RolloutJournal
from hybridflow.workers.worker import Context, Worker

if TYPE_CHECKING:
    from hybridflow.workers.conversation_loop import ConversationLoop


class GeneratingWorker(GeneratingRole[Batch], Worker):
    """Responses at once or as they finish, of the rows that `finished` gives.

    Attributes:
        generator: the engine that samples.
        refit: the way of its weights.
        loop: of rows that are conversations; None: they are none.
        journal: of the rows that finish; None: they are written nowhere. Conversations are in none.
    """

    generator: GenerationEngine
    refit: WeightUpdate
    loop: ConversationLoop | None
    journal: RolloutJournal | None = None

    def finished(self, prompts: Batch, step: int, changes: dict[str, Any]) -> Iterator[list[FinishedRow]]:
        """Yield rows as they finish, some together, with the newest weights."""
        raise NotImplementedError

    @property
    def sampling_version(self) -> int:
        """Version of the weights that sample."""
        raise NotImplementedError

    def generate_sequences(self, prompts: Batch, *, step: int = 0, **sampling: Unpack[SamplingChanges]) -> Batch:
        rows = chain.from_iterable(self.finished(prompts, step, {**sampling}))
        return self._columns(Generated.of(rows), {**sampling})

    def stream_sequences(
        self, prompts: Batch, *, step: int = 0, together: int = 1, **sampling: Unpack[SamplingChanges]
    ) -> Streamed[Batch]:
        waiting: list[FinishedRow] = []
        left = len(prompts)
        for rows in self.finished(prompts, step, {**sampling}):
            waiting += rows
            left -= len(rows)
            if len(waiting) < together and left:
                continue
            ordered = sorted(waiting, key=lambda one: one.row)
            waiting = []
            yield np.array([one.row for one in ordered]), self._columns(Generated.of(ordered), {**sampling})

    def sample(self, prompts: Batch, step: int, changes: dict[str, Any]) -> Iterator[list[FinishedRow]]:
        """Yield rows as they finish, with the weights that the generator has."""
        context = self.context
        config = context.config
        if "stream_id" not in prompts:
            raise ValueError(
                "rows to sample from have a `stream_id`, the number of their random stream. A call on a role gives it; "
                "a worker that makes rows itself passes on that of the rows it was given"
            )
        seeds = row_seeds(config.run.seed, step, prompts.dense("stream_id").tolist(), context.drawn)
        sampling = Sampling.of(config.rollout, changes)
        call = prompts.ragged("prompt_ids"), sampling, seeds
        if self.loop is not None:
            made = self.loop.stream(self.generator, prompts, sampling, seeds)
        elif self.journal is not None:
            made = self.journal.stream(self.generator, *call, self.refit.identity, context.metrics)
        else:
            made = self.generator.stream(*call)
        finished: list[FinishedRow] = []
        with context.timed("generate"):
            for rows in made:
                finished += rows
                yield rows
        if self.journal is not None:
            context.metrics.max("timing_s/journal", self.journal.seconds)
        prompted = int(prompts.ragged("prompt_ids").lengths.sum())
        measure(context.metrics, Generated.of(finished), prompted, greedy=changes.get("temperature") == 0.0)

    def journal_rollouts(self, folder: str, number: int, earlier: Mapping[str, int]) -> int:
        context = self.context
        if self.journal is not None:
            self.journal.close()
        writes = context.rank in context.layout.generation_output_ranks
        self.journal = RolloutJournal(
            Path(folder, f"{number:06d}-{context.role}-{context.rank}-{os.getpid()}{SUFFIX}") if writes else None,
            {Path(folder, name): size for name, size in earlier.items()},
            self._sampling_settings,
            stops=context.config.trainer.full_disk is FullDisk.stop,
        )
        return self.journal.known

    @cached_property
    def _sampling_settings(self) -> dict[str, object]:
        """Return the settings that are no part of `Sampling` and change what is sampled."""
        config = self.context.config
        return {
            "engine": self.context.engines.generation,
            "dtype": config.actor.model.dtype.value,
            "end_ids": end_ids(config.actor.model.path, config.task.chat_template_kwargs),
        }

    def _columns(self, generated: Generated, changes: dict[str, Any]) -> Batch:
        """Return what was sampled, with the weights' version and the temperature that it was sampled with."""
        config = self.context.config
        rows = len(generated.tokens)
        temperature = np.full(rows, Sampling.of(config.rollout, changes).of_log_probs, dtype=np.float32)
        runs = one_run(self.sampling_version, generated.tokens.lengths)
        return sampled(runs, temperature, generated, talks=bool(config.environment.name))


def make_generator(context: Context) -> GenerationEngine:
    """Make the generation engine of the actor's model on this rank."""
    config = context.config
    return generation_engines.get(context.engines.generation).build(
        config.actor.model,
        context.layout,
        config.rollout,
        seed=config.run.seed,
        stop_ids=end_ids(config.actor.model.path, config.task.chat_template_kwargs),
    )


def actor_shardings(context: Context, training: Layout, generation: Layout) -> Shardings:
    """Lay the actor's model over both layouts, as its two engines do. Raises ShardingError if one cannot."""
    shape = read_shape(context.config.actor.model.path)
    return make_shardings(context.engines.training, context.engines.generation, shape, training, generation)


def identifies(config: Config) -> bool:
    """Tell whether a refit is to identify its weights, for a journal of what they sample."""
    return config.rollout.recovery is RolloutRecovery.durable


def report_taken(metrics: Metrics, generator: GenerationEngine, refit: WeightUpdate) -> None:
    """Report how much memory a refit took at most beside the weights, how much generation's take, and of its proof."""
    metrics.max("timing_s/refit_proof", refit.proof_seconds)
    metrics.max("refit/repeated", refit.repeated)
    metrics.max("refit/peak_bytes", refit.peak_bytes)
    metrics.max("refit/generation_bytes", generator.weight_bytes)


def make_loop(context: Context) -> ConversationLoop | None:
    """Make the loop of conversations, if rollouts are any. All ranks of the pool call it at the same time."""
    if not context.config.environment.name:
        return None
    from hybridflow.workers.conversation_loop import ConversationLoop

    return ConversationLoop(context)


def sampled(runs: Ragged, temperature: np.ndarray, generated: Generated, *, talks: bool) -> Batch:
    """Return the columns of `generate_sequences`.

    Args:
        runs: of weight versions, of all tokens.
        temperature: [R] float32, of the log-probs.
        talks: rows are conversations.
    """
    columns = Batch(
        response_ids=generated.tokens,
        rollout_log_probs=generated.log_probs,
        finish_reason=generated.ended_by,
        truncated=generated.truncated,
        weight_version=sampled_runs(runs, [talk.sampled for talk in generated.talks]) if talks else runs,
        sampling_temperature=temperature,
    )
    return columns | _talk_columns(generated.talks) if talks else columns


def _talk_columns(talks: Sequence[Record]) -> Batch:
    """Return the columns that rows have as conversations."""
    return Batch(
        loss_mask=Ragged.of([talk.loss_mask for talk in talks], np.int64),
        turn_rewards=Ragged.of([talk.rewards for talk in talks], np.float32),
        turn_index=Ragged.of([talk.turn_index for talk in talks], np.int64),
        turns=np.array([talk.turns for talk in talks], dtype=np.int64),
        environment_failure=np.array([talk.failure for talk in talks], dtype=object),
    )


def measure(metrics: Metrics, generated: Generated, prompted: int, *, greedy: bool) -> None:
    """Measure what a call sampled. Greedy rows, not learned from, have names that begin with `greedy/`.

    Args:
        prompted: tokens of the rows' prompts.
    """
    rows = len(generated.tokens)
    lengths = generated.tokens.lengths
    length = "greedy/response_length" if greedy else "response_length"
    truncated = "greedy/truncated_fraction" if greedy else "rollout/truncated_fraction"
    metrics.mean(f"{length}/mean", lengths.sum(), rows)
    metrics.max(f"{length}/max", lengths.max(initial=0))
    metrics.mean(truncated, generated.truncated.sum(), rows)
    cached = generated.cached_tokens.sum()
    written = lengths.sum()
    talks = generated.talks
    if talks:  # each turn has what came before it as its prompt, and what an environment says is given
        prompted = sum(talk.prompted_tokens for talk in talks)
        written = sum(talk.sampled_tokens for talk in talks)
    metrics.mean("rollout/prefix_cache_hit_fraction", cached, prompted)
    metrics.total("perf/response_tokens", written)
    _measure_talks(metrics, talks, "greedy/environment" if greedy else "environment")


def _measure_talks(metrics: Metrics, talks: Sequence[Record], prefix: str) -> None:
    """Measure conversations. What an environment measures itself is of those in which it did not fail."""
    if not talks:
        return
    sound = [talk for talk in talks if not talk.failure]
    metrics.mean(f"{prefix}/turns", sum(talk.turns for talk in talks), len(talks))
    metrics.mean(f"{prefix}/failed_share", len(talks) - len(sound), len(talks))
    metrics.count(prefix, len(sound))
    for name in sorted({name for talk in sound for name in talk.metrics}):
        metrics.per(f"{prefix}/{name}", sum(talk.metrics.get(name, 0.0) for talk in sound), prefix)
