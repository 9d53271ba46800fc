"""What a rank runs: vLLM alone, with the weights of a folder, whose samples share their prompts."""

from __future__ import annotations

from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from hybridflow.batch import Ragged
from hybridflow.config.schema import RolloutConfig
from hybridflow.engines.generation_session import Request
from hybridflow.engines.sampling import FinishedRow, Generated, Sampling
from hybridflow.engines.vllm.engine import VllmEngine
from hybridflow.parallel.layout import Layout

SAMPLING = Sampling(1.0, max_tokens=12)


@cache
def engine(folder: Path) -> VllmEngine:
    """A generation engine on this rank alone; made once."""
    rollout = RolloutConfig(
        max_sequence_tokens=480, max_concurrent_rows=32, kv_cache_gib=0.1, gpu_memory_fraction=0.1, enforce_eager=True
    )
    made = VllmEngine(folder, Layout(), rollout, dtype="float32", seed=0, stop_ids=[])
    made.update_weights(iter(load_file(folder / "model.safetensors").items()), 1)
    return made


def at_once(folder: Path, prompts: Ragged, seeds: list[int]) -> Generated:
    """Rows of one call."""
    return engine(folder).generate(prompts, SAMPLING, seeds)


def joining(folder: Path, prompts: Ragged, seeds: list[int], together: int) -> Generated:
    """Rows of a session, which so many at a time join, a token after those before them."""
    waiting = [Request(row, prompts[row], SAMPLING, seed) for row, seed in enumerate(seeds)]
    finished: list[list[FinishedRow]] = []
    with engine(folder).session() as session:
        while waiting or session.pending:
            session.submit(waiting[:together])
            del waiting[:together]
            finished.append(session.advance())
    return Generated.of(chain.from_iterable(finished))


def one_by_one(folder: Path, prompts: Ragged, seeds: list[int]) -> list[Generated]:
    """Each row in a call of its own."""
    rows = np.arange(len(prompts))
    return [engine(folder).generate(prompts.select(rows[[row]]), SAMPLING, [seeds[row]]) for row in rows]
