"""Turns of a conversation as rows of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hybridflow.batch.batch import Batch
from hybridflow.batch.columns import Column, Ragged, select
from hybridflow.batch.loss_mask import LOSS_MASK
from hybridflow.batch.shared_prefix import PREFIX, as_prefix, no_prefix
from hybridflow.batch.weight_versions import WEIGHT_VERSION, cut_runs

TURN_INDEX = "turn_index"


class _Turn(NamedTuple):
    """Turn of a conversation: the row's number, and where in its response it begins and ends."""

    row: int
    start: int
    stop: int


def turn_rows(rows: Batch) -> Batch:
    """Return the turns of conversations as rows of their own, in their order, with the column `prefix`.

    A turn's prompt is all that came before it, its response what the policy wrote. It has the row's other columns: of
    those over responses the turn's part. Its prefix is the row of the turn before it, whole; of a first turn, what the
    conversation had. Tokens that nothing is learned from (`loss_mask`), as those of a failed environment, are no turn.
    """
    turns = [*_turns(rows)]
    source = np.array([turn.row for turn in turns], dtype=np.int64)
    prompts = rows.ragged("prompt_ids")
    responses = rows.ragged("response_ids")
    before = [np.concatenate([prompts[turn.row], responses[turn.row][: turn.start]]) for turn in turns]
    columns: dict[str, Column] = {"prompt_ids": Ragged.of(before, prompts.values.dtype)}
    for name, column in rows.items():
        if name in columns or name == PREFIX:
            continue
        if name == WEIGHT_VERSION:
            runs = rows.ragged(name)
            columns[name] = Ragged.of([cut_runs(runs[t.row], t.start, t.stop) for t in turns], np.int64)
        elif isinstance(column, Ragged) and np.array_equal(column.offsets, responses.offsets):
            columns[name] = Ragged.of([column[t.row][t.start : t.stop] for t in turns], column.values.dtype)
        else:
            columns[name] = select(column, source)
    own = rows.dense(PREFIX) if PREFIX in rows else no_prefix(len(rows))
    made = Batch(**columns)
    return made | Batch(prefix=_turn_prefixes(made, source, own))


def _turns(rows: Batch) -> Iterator[_Turn]:
    """Yield the turns that have a token to learn from."""
    for row, (index, mask) in enumerate(zip(rows.ragged(TURN_INDEX), rows.ragged(LOSS_MASK), strict=True)):
        for turn in np.unique(index[mask != 0]):
            learned = np.flatnonzero((index == turn) & (mask != 0))
            yield _Turn(row, int(learned[0]), int(learned[-1]) + 1)


def _turn_prefixes(turns: Batch, source: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return the column of turns that are rows; `source`: the conversation of each, and `own`: its column."""
    whole = as_prefix(turns)
    prefix = own[source].reshape(-1, 2)
    prefix[:, 1] = np.minimum(prefix[:, 1], whole[:, 1])
    later = np.flatnonzero(source[1:] == source[:-1]) + 1
    prefix[later] = whole[later - 1]
    return prefix
