"""Rows as vLLM takes them and gives them back."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import Any

import numpy as np

from hybridflow.batch import Ragged
from hybridflow.engines.sampling import END, LENGTH, STOP, FinishedRow, Sampling

# Parameters of a row that our steps and draws on a CPU know of (`MultiStep`, `DecodeLoop`, `RowSampler`).
KNOWN = frozenset({
    "temperature", "top_p", "top_k", "max_tokens", "seed", "logprobs", "flat_logprobs", "ignore_eos", "stop_token_ids",
    "stop", "allowed_token_ids", "detokenize", "include_stop_str_in_output", "output_kind", "skip_clone",
})  # fmt: skip
MIN_TEMPERATURE = 0.01  # vLLM would sample at this in place of less, and training score at what was asked for


def parameters(
    sampling: Sampling, seeds: Sequence[int], stop_ids: Sequence[int], allowed: list[int] | None = None
) -> list[Any]:
    """Return vLLM's SamplingParams of each row, which is one sample. Text is made only where a string may end the row.

    `allowed`: the only ids that are sampled; None: all. Raises ValueError as `refuse_unknown`, asked once for all rows.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    shared = SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        seed=0,
        logprobs=0,
        flat_logprobs=True,
        ignore_eos=True,  # of vLLM's idea of it; `stop_ids` has ours
        stop_token_ids=[*stop_ids, *sampling.stop_token_ids],
        stop=list(sampling.stop),
        allowed_token_ids=allowed,
        detokenize=bool(sampling.stop),
        include_stop_str_in_output=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
        # vLLM would copy each request's parameters deeply, which takes longer than a token of a small model; what it
        # changes in its copy is the same for all of these rows.
        skip_clone=True,
    )
    refuse_unknown(shared)
    rows = [copy(shared) for _ in seeds]  # making each would check all of it again
    for row, seed in zip(rows, seeds, strict=True):
        row.seed = seed
    return rows


def refuse_unknown(row: Any) -> None:
    """Raise ValueError for a row's SamplingParams that our steps and draws on a CPU would leave out, and say nothing.

    They are taken in place of vLLM's, and do not look at what earlier tokens change (penalties, `min_tokens`,
    `bad_words`), nor draw without a seed. Whoever sets another parameter teaches them, and adds it to `KNOWN`.
    """
    wrong = [f"{name} = {value!r}" for name, plain in _others() if (value := getattr(row, name)) != plain]
    if row.seed is None and row.temperature > 0:
        wrong.append("seed = None")
    if wrong:
        raise ValueError(f"vLLM's rows are sampled here without a look at {', '.join(wrong)} (SamplingParams)")


@cache
def _others() -> list[tuple[str, Any]]:
    """Return the parameters that are not known, each with what it is where nobody sets it."""
    from vllm import SamplingParams

    plain = SamplingParams()
    return [(name, getattr(plain, name)) for name in plain.__struct_fields__ if name not in KNOWN and name[0] != "_"]


def finished_row(output: Any, stop_ids: Sequence[int]) -> FinishedRow:
    """Read vLLM's RequestOutput of a request that is named by its row; `stop_ids`: as in `parameters`."""
    [best] = output.outputs
    assert best.finish_reason in ("stop", "length"), f"row {output.request_id} ended by {best.finish_reason}"
    stopped = END if best.stop_reason in stop_ids else STOP
    return FinishedRow(
        int(output.request_id),
        np.array(best.token_ids, dtype=np.int64),
        np.array(best.logprobs.logprobs, dtype=np.float32),
        LENGTH if best.finish_reason == "length" else stopped,
        output.num_cached_tokens,
    )


def check_lengths(prompts: Ragged, max_tokens: int, limit: int) -> None:
    """Raise ValueError if a prompt leaves less than `max_tokens` of a sequence's `limit` for its response."""
    room = limit - max_tokens
    long = np.flatnonzero(prompts.lengths > room)
    if len(long):
        raise ValueError(
            f"{len(long)} of {len(prompts)} prompts are too long, the longest with {prompts.lengths.max()} tokens: "
            f"rollout.max_sequence_tokens = {limit} less {max_tokens} of a response leaves {room}; raise the one, "
            "lower rollout.max_response_tokens, or leave these prompts out of the task"
        )


def check_temperature(temperature: float) -> None:
    """Raise ValueError for a temperature that vLLM does not take."""
    if not (temperature == 0 or temperature >= MIN_TEMPERATURE):
        raise ValueError(
            f"temperature = {temperature}: vLLM samples at {MIN_TEMPERATURE} or more; give that, or 0 for the "
            "likeliest tokens"
        )
