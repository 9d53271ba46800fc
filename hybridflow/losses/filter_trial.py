"""Can a rollout filter keep any row at all? It is tried on rollouts of many kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, product

import numpy as np

from hybridflow.batch.columns import row_numbers
from hybridflow.losses.rollout_filters import FilterInputs

SCALES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e6)  # of rewards
MAX_ROWS = 4096  # of one trial; a filter that looks at more together is tried on fewer
MAX_ROUNDS = 64  # of few rows, so that rewards between narrow bounds come up


def trials(prompts: int, samples: int, limit: int, seed: int = 0) -> Iterator[FilterInputs]:
    """Yield rollouts of this size: rewards of many scales, equal and unequal, with responses short, long and truncated.

    Args:
        limit: maximum number of tokens of a response.
    """
    prompts = max(1, min(prompts, MAX_ROWS // samples))
    rows = prompts * samples
    draw = np.random.default_rng(seed)
    group = np.repeat(np.arange(prompts), samples)
    one_of_each = (np.arange(rows) % samples == 0).astype(float)
    rewards = [np.full(rows, value) for value in (0.0, 0.5, 1.0)]
    rewards += [one_of_each, 1 - one_of_each, 2 * one_of_each - 1]
    rewards += [(draw.random(rows) < share).astype(float) for share in (0.1, 0.5, 0.9)]
    rewards += [scale * draw.random(rows) for scale in SCALES]
    rewards += [scale * draw.normal(size=rows) for scale in SCALES]
    rewards += [draw.integers(0, 11, rows).astype(float)]
    lengths = [draw.integers(1, limit + 1, rows), np.full(rows, 1), np.full(rows, max(1, limit // 2))]
    for reward, length, at_limit in product(rewards, lengths, (False, True)):
        truncated = length >= limit
        if at_limit:
            truncated = np.ones(rows, dtype=bool)
            length = np.full(rows, limit)
        yield FilterInputs(reward.astype(np.float32), group, length.astype(np.int64), truncated)


def keeps_nothing(chosen: Callable[[FilterInputs], np.ndarray], prompts: int, samples: int, limit: int) -> bool:
    """Tell whether the filter keeps no row of any trial. One that raises is no answer: the run will show it."""
    rounds = max(1, min(MAX_ROUNDS, MAX_ROWS // (prompts * samples)))
    for inputs in chain.from_iterable(trials(prompts, samples, limit, seed) for seed in range(rounds)):
        try:
            if len(row_numbers(chosen(inputs), len(inputs.rewards))):
                return False
        except Exception:
            return False
    return True
