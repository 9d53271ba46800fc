"""What to sample, and a random stream of its own for each row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 takes the likeliest."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    max_tokens: int = 64


def row_seeds(run_seed: int, step: int, sample_ids: np.ndarray, copy_ids: np.ndarray) -> list[int]:
    """A seed for each row from (run seed, step, sample, copy) and nothing else, so from no rank and no neighbour."""
    keys = zip(sample_ids.tolist(), copy_ids.tolist(), strict=True)
    return [int(np.random.SeedSequence((run_seed, step, *key)).generate_state(1)[0]) for key in keys]
