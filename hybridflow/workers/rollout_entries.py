"""Entries of a row in `rollouts/*.jsonl`: columns that say something to a reader, ours and those that a user added."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hybridflow.batch import Batch
from hybridflow.batch.columns import values_of
from hybridflow.batch.weight_versions import WEIGHT_VERSION, shown
from hybridflow.dispatch.known_columns import KINDS

LOGGED = (
    "answer",
    "rewards",
    "costs",
    "sample_id",
    "group_id",
    "weight_version",
    "finish_reason",
    "truncated",
    "turns",
    "environment_failure",
)
BY_TOKEN = "by_token"  # entry of the rows whose tokens are written one by one
VALUES = ("advantages", "rollout_log_probs", "old_log_probs", "ref_log_probs", "values")  # that it has of each token
DIGITS = 6  # of these
UNFINISHED = "\ufffd"  # at the end of a text: a character that the next tokens complete
CARRIED = frozenset({"metadata", "messages", "source"})  # a task's, which may have had such columns of its own before
OURS = frozenset({*KINDS, *LOGGED, "copy_id", "stream_id"}) - CARRIED


def our_entries(rollout: Batch, row: int) -> dict[str, Any]:
    """Return those of our columns that are written out."""
    return {name: _entry(rollout, name, row) for name in LOGGED if name in rollout}


def other_entries(rollout: Batch, row: int) -> dict[str, Any]:
    """Return the columns that a task, a worker or a flow of a user's added, as far as JSON can say them.

    A ragged column is a list, with a value a token. What has several numbers for each is for machines, and left out.
    """
    entries: dict[str, Any] = {}
    for name, column in rollout.items():
        if name in OURS or values_of(column).ndim > 1:
            continue
        value = column[row]
        if name in CARRIED and name != "source" and isinstance(value, str):
            value = _from_json(value)
        if isinstance(value, np.ndarray | np.generic) or _is_plain(value):
            entries[name] = value
    return entries


def token_entries(rollout: Batch, row: int, decode: Callable[[Sequence[int]], str]) -> dict[str, list[Any]]:
    """Return the tokens of a response, as `text`, and those of `VALUES` that are known of each of them."""
    ids = rollout.ragged("response_ids")[row].tolist()
    entries: dict[str, list[Any]] = {"text": token_texts(ids, decode)}
    for name in VALUES:
        values = rollout.ragged(name)[row].tolist() if name in rollout else []
        if len(values) == len(ids):
            entries[name] = [float(f"{value:.{DIGITS}g}") for value in values]
    return entries


def token_texts(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[str]:
    """Return the text that each token adds to those before it, which together are the text of all.

    A character of several tokens is the last one's. Decoded is only what a token stands next to, so that the time
    grows with the tokens and not with their square.
    """
    texts = []
    start = read = 0  # of the tokens that are decoded together, and of those that have no text yet
    for end in range(1, len(ids) + 1):
        before = decode(ids[start:read])
        text = decode(ids[start:end])
        if text.endswith(UNFINISHED) and end < len(ids):
            texts.append("")
            continue
        texts.append(text[len(before) :])
        start, read = read, end
    return texts


def _entry(rollout: Batch, name: str, row: int) -> Any:
    return shown(rollout.ragged(name)[row]) if name == WEIGHT_VERSION else rollout.dense(name)[row]


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # a column of a user's that has the name and is no JSON
        return text


def _is_plain(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
