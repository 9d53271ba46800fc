"""What to sample, and a random stream of its own for each row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hybridflow.config.schema import RolloutConfig

LEAST_TEMPERATURE = 0.01  # vLLM would sample at this in place of less, and training score at what was asked for


@dataclass(frozen=True)
class Sampling:
    """Rules by which tokens are drawn and a response ends; what ends it is part of it.

    Attributes:
        temperature: 0 takes the likeliest token.
        stop: a response ends with the token that completes one of these strings.
        stop_token_ids: a response ends with one of these tokens, or with the model's own end.
        vocabulary: only ids below it are drawn; 0: all.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    max_tokens: int = 64
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    vocabulary: int = 0

    @property
    def of_log_probs(self) -> float:
        """Temperature of the log-probs that vLLM gives: those of the likeliest tokens are of the model itself."""
        return self.temperature or 1.0

    @staticmethod
    def of(rollout: RolloutConfig, changes: dict[str, Any]) -> Sampling:
        """Read the settings of `rollout`, some of them changed.

        Raises TypeError for a change of what it does not have, ValueError for a temperature that vLLM does not take.
        """
        given = replace(rollout, **changes)
        if not (given.temperature == 0 or given.temperature >= LEAST_TEMPERATURE):
            raise ValueError(
                f"temperature = {given.temperature}: vLLM samples at {LEAST_TEMPERATURE} or more; give that, or 0 for "
                "the likeliest tokens"
            )
        return Sampling(
            given.temperature,
            given.top_p,
            given.top_k,
            given.max_response_tokens,
            given.stop,
            given.stop_token_ids,
            given.vocabulary,
        )


def row_seeds(run_seed: int, step: int, stream_ids: Sequence[int], before: Counter[int]) -> list[int]:
    """Derive a seed for each row from (run seed, step, stream) and nothing else, so from no rank and no neighbor.

    Args:
        before: how often each stream has been drawn from, which is taken in and counted on: it gives another seed each
            time.
    """
    found = []
    for stream in stream_ids:
        words = run_seed, step, stream >> 32, stream & 0xFFFFFFFF, before[stream]
        found.append(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1))
        before[stream] += 1
    return found
