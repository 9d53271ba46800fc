"""A row as vLLM takes it and gives it back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from hybridflow.batch import Ragged
from hybridflow.engines.vllm.sampling_params import Sampling

END, STOP, LENGTH = "end", "stop", "length"  # what may end a response


class FinishedRow(NamedTuple):
    """Response that is finished.

    Attributes:
        row: the number of its prompt.
        tokens: [N] int64; with the token that ended it.
        log_probs: [N] float32, natural logarithm, of each token under the distribution it was drawn from.
        ended_by: END, the model's own; STOP, a string or token that the sampling names; LENGTH, the limit of tokens was
            reached before either.
        cached_tokens: of the prompt, that were not computed because another row had computed them.
    """

    row: int
    tokens: np.ndarray
    log_probs: np.ndarray
    ended_by: str
    cached_tokens: int


class Generated(NamedTuple):
    """Responses to R prompts; see `FinishedRow`.

    Attributes:
        tokens: ragged int64.
        log_probs: ragged float32.
        ended_by: [R] object.
        cached_tokens: [R] int64.
    """

    tokens: Ragged
    log_probs: Ragged
    ended_by: np.ndarray
    cached_tokens: np.ndarray

    @property
    def truncated(self) -> np.ndarray:
        """[R] bool: the limit of tokens ended it."""
        return np.array(self.ended_by == LENGTH, dtype=bool)

    @staticmethod
    def of(finished: Iterable[FinishedRow]) -> Generated:
        """Order rows as their prompts, whatever the order in which they finished."""
        rows = sorted(finished, key=lambda found: found.row)
        return Generated(
            Ragged.of([found.tokens for found in rows], np.int64),
            Ragged.of([found.log_probs for found in rows], np.float32),
            np.array([found.ended_by for found in rows], dtype=object),
            np.array([found.cached_tokens for found in rows], dtype=np.int64),
        )


def parameters(sampling: Sampling, seed: int, stop_ids: Sequence[int], allowed: list[int] | None = None) -> Any:
    """vLLM's SamplingParams of one row, which is one sample. Text is made only where a string may end the row.

    `allowed`: the only ids that are sampled; None: all.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        seed=seed,
        logprobs=0,
        ignore_eos=True,  # of vLLM's idea of it; `stop_ids` has ours
        stop_token_ids=[*stop_ids, *sampling.stop_token_ids],
        stop=list(sampling.stop),
        allowed_token_ids=allowed,
        detokenize=bool(sampling.stop),
        include_stop_str_in_output=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def finished_row(output: Any, stop_ids: Sequence[int]) -> FinishedRow:
    """Read vLLM's RequestOutput of a request that is named by its row; `stop_ids`: as in `parameters`."""
    [best] = output.outputs
    assert best.finish_reason in ("stop", "length"), f"row {output.request_id} ended by {best.finish_reason}"
    stopped = END if best.stop_reason in stop_ids else STOP
    log_probs = [next(iter(token.values())).logprob for token in best.logprobs]
    return FinishedRow(
        int(output.request_id),
        np.array(best.token_ids, dtype=np.int64),
        np.array(log_probs, dtype=np.float32),
        LENGTH if best.finish_reason == "length" else stopped,
        output.num_cached_tokens,
    )


def check_lengths(prompts: Ragged, max_tokens: int, limit: int) -> None:
    """Raises ValueError if a prompt leaves less than `max_tokens` of a sequence's `limit` for its response."""
    room = limit - max_tokens
    long = np.flatnonzero(prompts.lengths > room)
    if len(long):
        raise ValueError(
            f"{len(long)} of {len(prompts)} prompts are too long, the longest with {prompts.lengths.max()} tokens: "
            f"rollout.max_sequence_tokens = {limit} less {max_tokens} of a response leaves {room}; raise the one, "
            "lower rollout.max_response_tokens, or leave these prompts out of the task"
        )
