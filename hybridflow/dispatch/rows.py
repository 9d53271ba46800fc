"""Helpers with which `distribute` and `collect` are written.

`take` and `split` number the rows that they hand out; `concat` puts rows that were so numbered back into the caller's
order, whatever order and whatever ranks they went to.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, singledispatch
from itertools import pairwise
from typing import Any

import numpy as np

from hybridflow.batch import BatchRef, joining, partition_groups
from hybridflow.batch.lineage import FAMILY_BITS, KIN
from hybridflow.dispatch.protocol import Call

NEAR = 0.05  # of a part's rows, by which either end of it may move so that samples of a prompt stay together


def count(call: Call) -> int:
    """Count the rows of a call; 0 if none of its arguments is rows. Raises ValueError if two disagree."""
    counts = set(map(len, call.refs))
    if len(counts) > 1:
        raise ValueError(f"arguments of one call have different numbers of rows: {sorted(counts)}")
    return counts.pop() if counts else 0


def groups(call: Call) -> np.ndarray:
    """Return a number for each row, [R] int64, equal for rows of one `group_id`; one without is a group of its own.

    Waits for rows whose `group_id` a rank has made.
    """
    first = call.rows()
    if first is None:
        return np.zeros(0, dtype=np.int64)
    return groups_of(first)


def groups_of(rows: BatchRef) -> np.ndarray:
    """Return `groups` of rows."""
    if "group_id" not in rows.columns:
        return np.arange(len(rows))
    if "group_id" in rows.driver_columns:
        return rows.driver_columns["group_id"]
    if rows.schema["group_id"] == "int":  # a rank made it, and reports its values
        return rows.numbers("group_id")
    return np.unique(rows.select_columns(["group_id"]).get().dense("group_id"), return_inverse=True)[1]


def take(call: Call, rows: np.ndarray) -> Call:
    """Return the call with these rows of every argument that is rows."""
    return call.map(lambda value: _numbered(value).select(rows) if isinstance(value, BatchRef) else value)


def split(call: Call, parts: int, *, balance: str = "rows", whole_groups: bool = False) -> list[Call]:
    """Split a call into parts that have its rows between them; a part may be empty.

    Args:
        balance: `rows`: runs of rows, as even as whole rows (or whole groups) allow; where a group ends within
            `NEAR` of a part's rows of an even cut, it is cut there. `tokens`: rows wherever they make the parts'
            tokens (a group's prompt, and responses) even; if there are several, it waits until lengths are known. See
            `partition_groups`, which keeps groups whole where that costs less.
        whole_groups: rows of one group stay together in any case; see `groups`.
    """
    rows = count(call)
    first = call.rows()
    if first is None or parts == 1:
        cuts = _even_cuts(rows, parts)
    elif balance == "tokens":
        tokens = first.tokens()
        prompts = first.lengths("prompt_ids") if "prompt_ids" in first.columns else np.zeros_like(tokens)
        divided = partition_groups(prompts, tokens - prompts, groups_of(first), parts)
        return [take(call, part) for part in divided]
    elif whole_groups:
        starts = [*_block_starts(groups_of(first)).tolist(), rows]
        cuts = [starts[cut] for cut in _even_cuts(len(starts) - 1, parts)]
    else:
        cuts = _cuts_near_groups(first, parts)
    return [call.map(partial(_part, a, b)) for a, b in pairwise(cuts)]


def _even_cuts(rows: int, parts: int) -> list[int]:
    return [rows * part // parts for part in range(parts + 1)]


def _cuts_near_groups(rows: BatchRef, parts: int) -> list[int]:
    """Return even cuts, moved to where a group begins near them; groups that a rank has made are not waited for."""
    even = np.array(_even_cuts(len(rows), parts))
    if "group_id" not in rows.driver_columns:
        return even.tolist()
    starts = np.append(_block_starts(rows.driver_columns["group_id"]), len(rows))
    after = np.searchsorted(starts, even)
    before = np.maximum(after - 1, 0)
    nearest = np.where(even - starts[before] <= starts[after] - even, starts[before], starts[after])
    near = np.abs(nearest - even) <= NEAR * len(rows) / parts
    cuts: list[int] = np.where(near, nearest, even).tolist()
    return cuts


def _part(start: int, stop: int, value: Any) -> Any:
    return value.part(start, stop) if isinstance(value, BatchRef) else value


def _block_starts(groups: np.ndarray) -> np.ndarray:
    """Find where a split parts no group. Rows stay in order, so groups that lie in each other's rows make one block."""
    rows = np.arange(len(groups))
    _, number = np.unique(groups, return_inverse=True)
    last = np.zeros(len(groups), dtype=np.int64)
    last[number] = rows  # numpy keeps the last of several writes
    reach = np.maximum.accumulate(last[number])
    return rows[np.append(-1, reach[:-1])[: len(rows)] < rows]


def _numbered(ref: BatchRef) -> BatchRef:
    return ref.with_origin(range(ref.rows)) if ref.origin is None else ref


@singledispatch
def join(first: Any, outputs: Sequence[Any]) -> Any:
    """Join the outputs of ranks, by the type of the first: here values that are not rows, as a list."""
    return list(outputs)


@join.register
def _(first: None, outputs: Sequence[Any]) -> None:
    return None


@join.register
def _(first: BatchRef, outputs: Sequence[Any]) -> BatchRef:
    numbered = joining.concat([output for output in outputs if output is not None])
    joined = numbered.with_origin(None)
    origin = numbered.origin
    if origin is None or isinstance(origin, range) or np.all(origin[1:] > origin[:-1]):
        return joined
    order = np.argsort(origin, kind="stable")
    if not np.all(np.diff(origin[order])):
        order = _by_call(numbered, origin)
    return joined.select(order)


def _by_call(rows: BatchRef, origin: np.ndarray) -> np.ndarray:
    """Return the order, [R], of rows that are parts of several calls, such as two streams: call by call.

    Raises ValueError if rows of one call come twice.
    """
    families = rows.lineage.get(KIN, np.zeros(len(rows), dtype=np.int64)) >> FAMILY_BITS
    _, first, family = np.unique(families, return_index=True, return_inverse=True)
    order = np.lexsort((origin, first[family]))
    twice = np.flatnonzero((np.diff(origin[order]) == 0) & (np.diff(family[order]) == 0))
    if len(twice):
        row = origin[order][twice[0]]
        raise ValueError(f"row {row} is in several of the outputs that were joined; collect must choose one of them")
    return order


def concat(outputs: Sequence[Any]) -> Any:
    """Join the outputs of ranks to one result: rows in the caller's order, metrics joined, other values as a list.

    Groups of one rollout keep their numbers, those of several rollouts get new ones where they have the same. None if
    there is nothing but None. Raises ValueError if a row is in two outputs.
    """
    return join(next((output for output in outputs if output is not None), None), outputs)
