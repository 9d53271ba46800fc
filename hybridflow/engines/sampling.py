"""Sampling: its settings, and the rows that come of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from hybridflow.batch import Ragged
from hybridflow.config.schema import RolloutConfig
from hybridflow.environments.conversation import Record

END = "end"
STOP = "stop"
LENGTH = "length"  # what may end a response


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
        settings = replace(rollout, **changes)
        return Sampling(
            settings.temperature,
            settings.top_p,
            settings.top_k,
            settings.max_response_tokens,
            settings.stop,
            settings.stop_token_ids,
            settings.vocabulary,
        )


class FinishedRow(NamedTuple):
    """Response that is finished.

    Attributes:
        row: the number of its prompt.
        tokens: [N] int64; with the token that ended it.
        log_probs: [N] float32, natural logarithm, of each token under the distribution it was drawn from.
        ended_by: END, the model's own; STOP, a string or token that the sampling names; LENGTH, the limit of tokens was
            reached before either.
        cached_tokens: of the prompt, that were not computed because another row had computed them.
        talk: of a row that is a conversation what is known of it beside its tokens; its `ended_by` may be any of
            `hybridflow.environments.conversation`.
    """

    row: int
    tokens: np.ndarray
    log_probs: np.ndarray
    ended_by: str
    cached_tokens: int
    talk: Record | None = None


class Generated(NamedTuple):
    """Responses to R prompts; see `FinishedRow`.

    Attributes:
        tokens: ragged int64.
        log_probs: ragged float32.
        ended_by: [R] object.
        cached_tokens: [R] int64.
        talks: [R] records of conversations; empty if the rows are none.
    """

    tokens: Ragged
    log_probs: Ragged
    ended_by: np.ndarray
    cached_tokens: np.ndarray
    talks: Sequence[Record] = ()

    @property
    def truncated(self) -> np.ndarray:
        """[R] bool: the limit of tokens ended it."""
        return np.array(self.ended_by == LENGTH, dtype=bool)

    @staticmethod
    def of(finished: Iterable[FinishedRow]) -> Generated:
        """Order rows as their prompts, whatever the order in which they finished."""
        rows = sorted(finished, key=lambda row: row.row)
        return Generated(
            Ragged.of([row.tokens for row in rows], np.int64),
            Ragged.of([row.log_probs for row in rows], np.float32),
            np.array([row.ended_by for row in rows], dtype=object),
            np.array([row.cached_tokens for row in rows], dtype=np.int64),
            [row.talk for row in rows if row.talk is not None],
        )
