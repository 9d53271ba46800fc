"""`prefix`: which row a row begins as, and for how many tokens.

It is a dense column, [R, 2] int64: of each row (name, tokens). The tokens of a row are its prompt's and its response's,
end to end, and its name is made of them (`row_names`). A row with (n, k) begins with the first k tokens of the row that
is named n; one with 0 tokens begins as no other that is known. Rows with the same name n share as many tokens as the
smaller of their numbers, so they can be told to belong together where the row itself is not among them.

A name is no place: rows may be filtered, reordered, repeated, joined with others and split over ranks, and what the
column says stays true. Who reads it, on a rank, asks `shared_prefixes` where those rows are that are here, if they are;
it compares the tokens, so rows that were changed afterwards are refused and not mistaken. Whoever ignores the column
loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hybridflow.batch.batch import Batch
from hybridflow.batch.columns import Ragged, offsets_of
from hybridflow.batch.hashed_ids import hashed_id

PREFIX = "prefix"


def row_tokens(rows: Batch) -> Ragged:
    """Return the tokens of rows: their prompts, followed by their responses if they have any."""
    prompts = rows.ragged("prompt_ids")
    if "response_ids" not in rows:
        return prompts
    both = zip(prompts, rows.ragged("response_ids"), strict=True)
    return Ragged.of([np.concatenate(pair) for pair in both], np.int64)


def row_names(rows: Batch) -> np.ndarray:
    """Return the names of rows, [R] int64, not negative: equal for equal tokens, and else different."""
    contents = (np.ascontiguousarray(tokens, dtype="<i8").tobytes() for tokens in row_tokens(rows))
    return np.array([*map(hashed_id, contents)], dtype=np.int64)


def as_prefix(rows: Batch) -> np.ndarray:
    """Return the column `prefix` of rows that go on from these, each from all of its tokens."""
    return np.stack([row_names(rows), row_tokens(rows).lengths], axis=1)


def no_prefix(count: int) -> np.ndarray:
    """Return the column `prefix` of so many rows that begin as no others."""
    return np.zeros((count, 2), dtype=np.int64)


def shared_prefixes(rows: Batch) -> np.ndarray:
    """Find with which row, of those that are here, each shares a prefix: [R, 2] int64, (place, tokens), or (-1, 0).

    It is the row that `prefix` names, or else the first with the same name. A row of which the column says nothing, as
    all do without it, shares with the first of its `group_id` what their prompts have in common.

    Raises ValueError where the tokens of two rows are not those that `prefix` says they share.
    """
    found = np.tile(np.array([-1, 0], dtype=np.int64), (len(rows), 1))
    if PREFIX in rows and rows.dense(PREFIX).any():
        tokens = row_tokens(rows)
        for row, at, shared in _named(rows):
            if not np.array_equal(tokens[row][:shared], tokens[at][:shared]) or shared > len(tokens[row]):
                raise ValueError(
                    f"{PREFIX} of row {row} says that it begins with {shared} tokens of row {at} here, and it does "
                    "not; give the column anew to rows whose tokens are changed"
                )
            found[row] = at, shared
    for row, at, shared in _same_group(rows):
        if found[row, 0] < 0 and shared:
            found[row] = at, shared
    return found


def _named(rows: Batch) -> Iterator[tuple[int, int, int]]:
    """Yield of rows that begin as another: their number, that of the other one, and how many tokens they share."""
    by_name = {name: row for row, name in reversed([*enumerate(row_names(rows).tolist())])}
    first: dict[int, tuple[int, int]] = {}
    for row, (name, shared) in enumerate(rows.dense(PREFIX).tolist()):
        at = by_name.get(name, row)
        if not shared:
            continue
        if at != row:
            yield row, at, shared
        elif name in first:
            yield row, first[name][0], min(shared, first[name][1])
        first.setdefault(name, (row, shared))


def _same_group(rows: Batch) -> Iterator[tuple[int, int, int]]:
    """Yield as `_named`, of rows that are samples of one prompt.

    A flow may have given some of them other prompts since, so what they share is looked up and not taken for granted.
    """
    if "group_id" not in rows:
        return
    first: dict[Any, int] = {}
    group_first = np.array([first.setdefault(group, row) for row, group in enumerate(rows.dense("group_id").tolist())])
    later = np.flatnonzero(group_first != np.arange(len(rows)))
    if len(later):
        at = group_first[later]
        yield from zip(later.tolist(), at.tolist(), _common(rows.ragged("prompt_ids"), later, at), strict=True)


def _common(tokens: Ragged, rows: np.ndarray, others: np.ndarray) -> list[int]:
    """Return how many tokens each of some rows has in common with another from the beginning on."""
    shorter = np.minimum(tokens.lengths[rows], tokens.lengths[others])
    # One place more than there are tokens: there they differ at last.
    spans = shorter + 1
    starts = offsets_of(spans)[:-1]
    column = np.arange(spans.sum()) - np.repeat(starts, spans)
    inside = column < np.repeat(shorter, spans)
    one, other = (
        tokens.values[np.where(inside, np.repeat(tokens.offsets[side], spans) + column, 0)] for side in (rows, others)
    )
    differing = np.where(inside & (one == other), len(column), column)
    common: list[int] = np.minimum.reduceat(differing, starts).tolist()
    return common
