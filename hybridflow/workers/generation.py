"""What workers that generate share: vLLM as the settings say, and a call of it with what it measures."""

from __future__ import annotations

from typing import Any

import numpy as np

from hybridflow.batch import Batch
from hybridflow.engines.vllm.engine import VllmEngine
from hybridflow.engines.vllm.requests import Generated
from hybridflow.engines.vllm.sampling import Sampling, row_seeds
from hybridflow.tasks.tokenizer import load_tokenizer
from hybridflow.workers.base import Context


def make_generator(context: Context) -> VllmEngine:
    """vLLM for the actor's model on this rank."""
    config = context.config
    return VllmEngine(
        config.actor.model.path,
        context.layout,
        config.rollout,
        dtype=config.actor.model.dtype.value,
        seed=config.run.seed,
        stop_ids=stop_ids(config.actor.model.path),
    )


def generated(context: Context, generator: VllmEngine, prompts: Batch, step: int, changes: dict[str, Any]) -> Batch:
    """The columns of `ActorRole.generate_sequences`, with the weights that the generator has."""
    rows, config = len(prompts), context.config
    copies = prompts.dense("copy_id") if "copy_id" in prompts else np.zeros(rows, dtype=np.int64)
    seeds = row_seeds(config.run.seed, step, prompts.dense("sample_id"), copies)
    version = np.full(rows, -1 if generator.version is None else generator.version, dtype=np.int64)
    with context.timed("generate"):
        found = generator.generate(prompts.ragged("prompt_ids"), Sampling.of(config.rollout, changes), seeds)
    _measure(context, prompts, found)
    return Batch(
        response_ids=found.tokens,
        rollout_log_probs=found.log_probs,
        truncated=found.truncated,
        weight_version=version,
    )


def _measure(context: Context, prompts: Batch, found: Generated) -> None:
    metrics, rows, lengths = context.metrics, len(prompts), found.tokens.lengths
    metrics.mean("response_length/mean", lengths.sum(), rows)
    metrics.largest("response_length/max", lengths.max(initial=0))
    metrics.mean("rollout/truncated_fraction", found.truncated.sum(), rows)
    cached, prompted = found.cached_tokens.sum(), prompts.ragged("prompt_ids").lengths.sum()
    metrics.mean("rollout/prefix_cache_hit_fraction", cached, prompted)
    metrics.total("perf/response_tokens", lengths.sum())


def stop_ids(folder: str) -> list[int]:
    """The end-of-sequence ids of a model folder."""
    from transformers import GenerationConfig

    try:
        eos = GenerationConfig.from_pretrained(folder).eos_token_id
    except OSError:  # the folder has no generation config
        eos = None
    found = eos if isinstance(eos, list) else [eos]
    return sorted({int(i) for i in [*found, load_tokenizer(folder).eos_token_id] if i is not None})
