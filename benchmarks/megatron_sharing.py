"""What computing shared prompts once is worth to the training engine; `benchmarks.megatron` asks it.

Rows are samples of prompts. A prompt is a share of its rows' tokens, responses have log-normal lengths (sigma 0.4), and
a row has about 160 tokens. In turn the engine is given the rows with `group_id` and without, which is all that tells it
that they share something. What could be gained at most is told beside: with p of the tokens in prompts and n samples
each, the layers compute p / n + 1 − p of the tokens, while the output layer, which costs o of the layers for each
response token, computes as many as before: (1 + o (1 − p)) / (p / n + (1 − p) (1 + o)).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.megatron_subjects import Ours
from benchmarks.pairs import seconds
from hybridflow.batch import Batch, Ragged
from hybridflow.models import ModelShape

ROWS, ROW_TOKENS, SIGMA = 64, 160, 0.4
# Passes of the output layer, whose logits are made again in the backward pass, and of layers.
TRAINING, SCORING = (4, 3), (1, 1)


class Sharing(NamedTuple):
    """Case: samples of a prompt, and how much of their tokens it is."""

    samples: int
    share: float


TYPICAL = "8x57"
SHARING = {
    f"{samples}x{percent}": Sharing(samples, percent / 100)
    for samples in (1, 4, 8, 16)
    for percent in ((10, 50, 57, 90) if samples == 8 else (10, 50, 90))
}
"""By name: samples of a prompt x percent of the tokens that are its."""


def grouped_rows(seed: int, vocab: int, case: Sharing) -> Batch:
    """Make samples of prompts of random tokens."""
    draw = np.random.default_rng(seed)
    groups = ROWS // case.samples
    prompts = np.repeat(draw.normal(1.0, 0.1, groups).clip(0.5, 1.5), case.samples) * case.share * ROW_TOKENS
    responses = draw.lognormal(-(SIGMA**2) / 2, SIGMA, ROWS) * (1 - case.share) * ROW_TOKENS
    group_id = np.repeat(np.arange(groups), case.samples)
    texts = [draw.integers(0, vocab, max(1, int(length))) for length in prompts[:: case.samples]]
    return Batch(
        prompt_ids=Ragged.of([texts[group] for group in group_id]),
        response_ids=Ragged.of([draw.integers(0, vocab, max(1, int(length))) for length in responses]),
        group_id=group_id,
    )


def limit(shape: ModelShape, case: Sharing, passes: tuple[int, int]) -> float:
    """Return what could be gained, by the formula above; attention's own products are left out."""
    heads = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim
    layers = shape.layers * shape.hidden * (heads + 3 * shape.ffn)
    output = shape.vocab * shape.hidden / layers * passes[0] / passes[1]
    prompt = case.share
    return (1 + output * (1 - prompt)) / (prompt / case.samples + (1 - prompt) * (1 + output))


def measure_sharing(ours: Ours, case: Sharing, seeds: int, advance: Callable[[], None]) -> dict[str, Any]:
    """Time training and scoring with and without sharing in turn, other rows for each seed."""
    taken: dict[str, list[tuple[float, float]]] = {"train": [], "score": []}
    tokens = []
    for seed in range(-1, seeds):  # the first is a warm-up, and short
        rows = grouped_rows(seed + 1, ours.engine.shape.vocab, case).slice(0, ROWS if seed >= 0 else case.samples)
        for name, work in (("train", ours.train), ("score", ours.score)):
            pair = in_turn(partial(work, seed=seed), rows, shared_first=seed % 2 == 0)
            if seed >= 0:
                taken[name].append(pair)
        if seed >= 0:
            tokens.append(int(rows.lengths("prompt_ids").sum() + rows.lengths("response_ids").sum()))
            advance()
    result: dict[str, Any] = {}
    for name, passes in (("train", TRAINING), ("score", SCORING)):
        ratios = [without / shared for shared, without in taken[name]]
        result[f"{name}_ratio"] = round(median(ratios), 3)
        result[f"{name}_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
        result[f"{name}_limit"] = round(limit(ours.engine.shape, case, passes), 3)
        result[f"{name}_tokens_per_s"] = {
            who: round(median(count / pair[place] for count, pair in zip(tokens, taken[name], strict=True)))
            for place, who in enumerate(("shared", "without"))
        }
    return result


def in_turn(work: Callable[[Batch], None], rows: Batch, *, shared_first: bool) -> tuple[float, float]:
    """Return the seconds of work on rows that share prompts, and on the same rows that do not say so."""
    silent = rows.select_columns(["prompt_ids", "response_ids"])
    if shared_first:
        return seconds(partial(work, rows)), seconds(partial(work, silent))
    without = seconds(partial(work, silent))
    return seconds(partial(work, rows)), without
