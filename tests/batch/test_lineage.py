"""Groups of several origins: strangers stay strangers, and parts of one group find each other again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow import dispatch
from hybridflow.batch import Batch, BatchRef, stacked
from hybridflow.batch.joining import concat


def build_rows(count: int) -> BatchRef:
    return BatchRef.from_local(Batch(n=np.arange(count)))


def groups_of(rows: BatchRef) -> list[int]:
    found: list[int] = rows.driver_columns["group_id"].tolist()
    return found


def test_two_rollouts_do_not_merge_their_groups() -> None:
    prompts = build_rows(2)
    one, other = prompts.repeat(2), prompts.repeat(2)
    joined = dispatch.concat([one, other])
    assert groups_of(joined) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert joined.get().dense("n").tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert groups_of(dispatch.concat([joined, prompts.repeat(1)])) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 5]


def test_parts_of_one_rollout_keep_their_groups() -> None:
    rollout = build_rows(3).repeat(2)
    even, odd = rollout.select([0, 2, 4]), rollout.select([1, 3, 5])
    assert groups_of(concat([even, odd])) == [0, 1, 2, 0, 1, 2]
    pieces = [rollout.select(rows).with_origin(np.array(rows)) for rows in ([4], [0, 3], [1, 2, 5])]
    assert groups_of(dispatch.concat(pieces)) == [0, 0, 1, 1, 2, 2], "of a stream, in the order of its call"
    assert groups_of(concat([rollout.slice(4, 6), rollout.slice(0, 2)])) == [2, 2, 0, 0], "numbers are kept"
    assert groups_of(concat([rollout, rollout.select([5])])) == [0, 0, 1, 1, 2, 2, 2]


def test_parts_of_two_streams_are_put_in_order_call_by_call() -> None:
    def stream(count: int) -> list[BatchRef]:
        whole = build_rows(count).repeat(2)
        return [whole.select(rows).with_origin(rows) for rows in np.array_split(np.arange(2 * count)[::-1], 3)]

    one, other = stream(2), stream(3)
    mixed = dispatch.concat([one[1], other[2], one[0], other[0], one[2], other[1]])
    assert mixed.get().dense("n").tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2]
    assert len(set(zip(groups_of(mixed), [0] * 4 + [1] * 6, strict=True))) == len(set(groups_of(mixed))) == 5
    with pytest.raises(ValueError, match="row 2 is in several of the outputs"):
        dispatch.concat([*one, *other, one[0]])


def test_parts_find_their_group_also_after_it_was_numbered_anew() -> None:
    one, other = build_rows(2).repeat(2), build_rows(2).repeat(2)
    some = concat([one.slice(0, 3), other.slice(0, 3)])
    assert groups_of(some) == [0, 0, 1, 2, 2, 3]
    assert groups_of(concat([some, other.slice(3, 4), one.slice(3, 4)])) == [0, 0, 1, 2, 2, 3, 3, 1]


def test_a_union_and_what_is_made_of_it_keep_their_groups_apart() -> None:
    one, other = (build_rows(2).repeat(2) | BatchRef.from_local(Batch(m=np.arange(4))) for _ in range(2))
    again = (build_rows(4).select_columns([]) | BatchRef.from_local(Batch(n=np.arange(4)))) | build_rows(2).repeat(
        2
    ).select_columns([])
    assert groups_of(concat([one.select([3, 1]), other.select([0, 3])])) == [0, 1, 2, 3]
    assert groups_of(concat([again, build_rows(2).repeat(2)])) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_stacked_rows_are_strangers_whatever_they_were() -> None:
    rollout = build_rows(2).repeat(2)
    both = stacked([rollout, rollout])
    assert groups_of(both) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert groups_of(concat([both, rollout])) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert groups_of(concat([both.slice(0, 3), both.slice(3, 8)])) == groups_of(both)


def test_groups_that_a_user_numbered_are_as_he_says() -> None:
    def numbered(*group: int) -> BatchRef:
        return BatchRef(
            len(group), build_rows(len(group)).sources, {"group_id": np.array(group), "copy_id": np.array(group)}
        )

    assert groups_of(concat([numbered(7, 7), numbered(7, 3)])) == [7, 7, 7, 3]
    assert groups_of(concat([numbered(0, 1), build_rows(2).repeat(1)])) == [0, 1, 2, 3]


@given(st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=4), st.data())
def test_rows_are_together_exactly_if_they_were(parts: list[list[int]], data: st.DataObject) -> None:
    rollouts = [build_rows(3).repeat(2) for _ in range(2)]
    of = [data.draw(st.integers(0, 1)) for _ in parts]
    found = groups_of(concat([rollouts[which].select(rows) for which, rows in zip(of, parts, strict=True)]))
    origin = [(which, row // 2) for which, rows in zip(of, parts, strict=True) for row in rows]
    assert len({*zip(found, origin, strict=True)}) == len({*found}) == len({*origin})


def test_columns_must_still_be_the_same() -> None:
    with pytest.raises(ValueError, match="different columns"):
        concat([build_rows(2).repeat(2), build_rows(2)])
