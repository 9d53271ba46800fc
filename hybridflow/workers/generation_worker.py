"""Base of workers that generate: vLLM as the settings say, and a call of it with what it measures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Unpack

import numpy as np

from hybridflow.batch import Batch
from hybridflow.batch.weight_versions import one_run
from hybridflow.dispatch import Streamed
from hybridflow.engines.vllm.engine import VllmEngine
from hybridflow.engines.vllm.requests import FinishedRow, Generated
from hybridflow.engines.vllm.sampling_params import Sampling, row_seeds
from hybridflow.observe.metrics import Metrics
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
            found = sorted(rows, key=lambda one: one.row)
            yield np.array([one.row for one in found]), self._columns(Generated.of(found), {**sampling})

    def _columns(self, found: Generated, changes: dict[str, Any]) -> Batch:
        """Return what was sampled, with the weights' version and the temperature that it was sampled with."""
        temperature = Sampling.of(self.context.config.rollout, changes).of_log_probs
        return sampled(self.sampling_version, temperature, found)


def make_generator(context: Context) -> VllmEngine:
    """vLLM for the actor's model on this rank."""
    config = context.config
    return VllmEngine(
        config.actor.model.path,
        context.layout,
        config.rollout,
        dtype=config.actor.model.dtype.value,
        seed=config.run.seed % 2**32,  # of vLLM's own, which numpy's old generator bounds; rows have theirs
        stop_ids=end_ids(config.actor.model.path, config.task.chat_template_kwargs),
    )


def report_taken(metrics: Metrics, generator: VllmEngine, refit: WeightUpdate) -> None:
    """Report how much memory a refit took at most beside the weights, and how much vLLM's take."""
    metrics.max("refit/peak_bytes", refit.peak_bytes)
    metrics.max("refit/generation_bytes", generator.weight_bytes)


def stream(
    context: Context, generator: VllmEngine, prompts: Batch, step: int, changes: dict[str, Any]
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


def sampled(version: int, temperature: float, found: Generated) -> Batch:
    """Return the columns of `generate_sequences`; `version`: of the weights; `temperature`: of the log-probs."""
    return Batch(
        response_ids=found.tokens,
        rollout_log_probs=found.log_probs,
        finish_reason=found.ended_by,
        truncated=found.truncated,
        weight_version=one_run(version, found.tokens.lengths),
        sampling_temperature=np.full(len(found.tokens), temperature, dtype=np.float32),
    )


def _measure(context: Context, prompts: Batch, found: Generated, *, greedy: bool) -> None:
    """Measure what a call sampled. Greedy rows, not learned from, have names that begin with `greedy/`."""
    metrics, rows, lengths = context.metrics, len(prompts), found.tokens.lengths
    length, cut = ("greedy/response_length", "greedy") if greedy else ("response_length", "rollout")
    metrics.mean(f"{length}/mean", lengths.sum(), rows)
    metrics.max(f"{length}/max", lengths.max(initial=0))
    metrics.mean(f"{cut}/truncated_fraction", found.truncated.sum(), rows)
    cached, prompted = found.cached_tokens.sum(), prompts.ragged("prompt_ids").lengths.sum()
    metrics.mean("rollout/prefix_cache_hit_fraction", cached, prompted)
    metrics.total("perf/response_tokens", lengths.sum())
