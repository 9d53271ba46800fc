"""Base of workers that generate: an engine as the settings say, and a call of it with what it measures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Unpack

import numpy as np

from hybridflow.batch import Batch
from hybridflow.batch.weight_versions import one_run
from hybridflow.dispatch import Streamed
from hybridflow.engines.base import GenerationEngine, generation_engines, make_shardings
from hybridflow.engines.sampling import FinishedRow, Generated, Sampling, row_seeds
from hybridflow.engines.sharding import Shardings
from hybridflow.models import read_shape
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout
from hybridflow.resharding.refit import WeightUpdate
from hybridflow.roles import SamplingChanges
from hybridflow.roles.builtin_roles import GeneratingRole
from hybridflow.tasks.tokenizer import end_ids
from hybridflow.workers.worker import Context, Worker


class GeneratingWorker(GeneratingRole[Batch], Worker):
    """Responses at once or as they finish, of the rows that `finished` gives."""

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
        self, prompts: Batch, *, step: int = 0, **sampling: Unpack[SamplingChanges]
    ) -> Streamed[Batch]:
        for rows in self.finished(prompts, step, {**sampling}):
            ordered = sorted(rows, key=lambda one: one.row)
            yield np.array([one.row for one in ordered]), self._columns(Generated.of(ordered), {**sampling})

    def _columns(self, generated: Generated, changes: dict[str, Any]) -> Batch:
        """Return what was sampled, with the weights' version and the temperature that it was sampled with."""
        temperature = Sampling.of(self.context.config.rollout, changes).of_log_probs
        return sampled(self.sampling_version, temperature, generated)


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


def report_taken(metrics: Metrics, generator: GenerationEngine, refit: WeightUpdate) -> None:
    """Report how much memory a refit took at most beside the weights, how much generation's take, and of its proof."""
    metrics.max("timing_s/refit_proof", refit.proof_seconds)
    metrics.max("refit/repeated", refit.repeated)
    metrics.max("refit/peak_bytes", refit.peak_bytes)
    metrics.max("refit/generation_bytes", generator.weight_bytes)


def stream(
    context: Context, generator: GenerationEngine, prompts: Batch, step: int, changes: dict[str, Any]
) -> Iterator[list[FinishedRow]]:
    """Yield rows as they finish, with the weights that the generator has."""
    config = context.config
    if "stream_id" not in prompts:
        raise ValueError(
            "rows to sample from have a `stream_id`, the number of their random stream. A call on a role gives it; "
            "a worker that makes rows itself passes on that of the rows it was given"
        )
    seeds = row_seeds(config.run.seed, step, prompts.dense("stream_id").tolist(), context.drawn)
    finished: list[FinishedRow] = []
    with context.timed("generate"):
        for rows in generator.stream(prompts.ragged("prompt_ids"), Sampling.of(config.rollout, changes), seeds):
            finished += rows
            yield rows
    _measure(context, prompts, Generated.of(finished), greedy=changes.get("temperature") == 0.0)


def sampled(version: int, temperature: float, generated: Generated) -> Batch:
    """Return the columns of `generate_sequences`; `version`: of the weights; `temperature`: of the log-probs."""
    return Batch(
        response_ids=generated.tokens,
        rollout_log_probs=generated.log_probs,
        finish_reason=generated.ended_by,
        truncated=generated.truncated,
        weight_version=one_run(version, generated.tokens.lengths),
        sampling_temperature=np.full(len(generated.tokens), temperature, dtype=np.float32),
    )


def _measure(context: Context, prompts: Batch, generated: Generated, *, greedy: bool) -> None:
    """Measure what a call sampled. Greedy rows, not learned from, have names that begin with `greedy/`."""
    metrics = context.metrics
    rows = len(prompts)
    lengths = generated.tokens.lengths
    length = "greedy/response_length" if greedy else "response_length"
    truncated = "greedy/truncated_fraction" if greedy else "rollout/truncated_fraction"
    metrics.mean(f"{length}/mean", lengths.sum(), rows)
    metrics.max(f"{length}/max", lengths.max(initial=0))
    metrics.mean(truncated, generated.truncated.sum(), rows)
    cached = generated.cached_tokens.sum()
    prompted = prompts.ragged("prompt_ids").lengths.sum()
    metrics.mean("rollout/prefix_cache_hit_fraction", cached, prompted)
    metrics.total("perf/response_tokens", lengths.sum())
