"""`prefix`: what it says of rows stays true wherever they go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.batch import concat as join_batches
from hybridflow.batch.shared_prefix import as_prefix, no_prefix, row_names, row_tokens, shared_prefixes
from hybridflow.dispatch import Call, concat, protocols
from hybridflow.parallel.layout import Layout

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=4)  # so few that rows are often alike by chance
# Of each row: which of those before it it goes on from (of as many tokens as the share of them says), and its tokens.
BRANCHES = st.lists(st.tuples(st.integers(0, 20), st.floats(0, 1), TOKENS, TOKENS), min_size=1, max_size=8)
Branches = list[tuple[int, float, list[int], list[int]]]


def build_tree(branches: Branches) -> tuple[Batch, list[int], list[int]]:
    """Rows that go on from others; the number of each row's parent (-1: of none), and how much of it is shared."""
    tokens: list[tuple[list[int], list[int]]] = []
    parents: list[int] = []
    shared: list[int] = []
    for number, (at, share, prompt, response) in enumerate(branches):
        parent = at % (number + 1) - 1
        whole = [*tokens[parent][0], *tokens[parent][1]] if parent >= 0 else []
        begins = whole[: round(share * len(whole))]
        parents.append(parent if begins else -1)
        shared.append(len(begins))
        tokens.append(([*begins, *prompt], response))
    rows = Batch(
        prompt_ids=Ragged.of([prompt for prompt, _ in tokens], np.int64),
        response_ids=Ragged.of([response for _, response in tokens], np.int64),
        number=np.arange(len(tokens)),
    )
    whole_rows = as_prefix(rows)
    prefix = no_prefix(len(rows))
    for row, parent in enumerate(parents):
        if parent >= 0:
            prefix[row] = whole_rows[parent, 0], shared[row]
    return rows | Batch(prefix=prefix), parents, shared


def assert_true(rows: Batch, parents: list[int], shared: list[int]) -> None:
    """Whatever is found is so; and what is here is found: the row itself, or one that goes on from the same."""
    found = shared_prefixes(rows)
    tokens = [row.tolist() for row in row_tokens(rows)]
    numbers = rows.dense("number").tolist()
    names = {tuple(row) for row in tokens}
    for row, (at, count) in enumerate(found.tolist()):
        assert (at < 0) == (count == 0) and at != row
        if at >= 0:
            assert tokens[row][:count] == tokens[at][:count] and count <= min(len(tokens[row]), len(tokens[at]))
        parent = parents[numbers[row]]
        if parent >= 0 and parent in numbers and tokens[numbers.index(parent)] != tokens[row]:
            assert count == shared[numbers[row]] and tuple(tokens[at]) in names


@settings(max_examples=50)
@given(BRANCHES)
def test_a_tree_is_found_again(branches: Branches) -> None:
    rows, parents, shared = build_tree(branches)
    assert_true(rows, parents, shared)


@settings(max_examples=50, deadline=None)
@given(
    branches=BRANCHES,
    layout=st.sampled_from([Layout(), Layout(data=2), Layout(data=3), Layout(tensor=2, data=2)]),
    name=st.sampled_from(["dp_proto", "dp_tokens", "3d_proto"]),
    data=st.data(),
)
def test_it_stays_true_over_ranks(branches: Branches, layout: Layout, name: str, data: st.DataObject) -> None:
    """Rows are filtered, reordered, taken twice and joined with others, and go out: each rank finds what it has."""
    rows, parents, shared = build_tree(branches)
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12))
    ref = concat([BatchRef.from_local(rows.select(order[:5])), BatchRef.from_local(rows).select(order[5:])])
    calls = protocols.get(name)().distribute(layout, Call((ref,)))
    given_out = []
    for call in calls:
        part = call.args[0].get() if call is not None else Batch()
        if part.columns and len(part):
            assert_true(part, parents, shared)
            given_out += part.dense("number").tolist()
    copies = layout.size // layout.data if name != "dp_proto" else 1
    assert sorted(given_out) == sorted(order * copies)


def test_siblings_share_without_the_row_that_they_go_on_from() -> None:
    rows = Batch(prompt_ids=Ragged.of([[1, 2, 3]]), response_ids=Ragged.of([[4, 5]]))
    name = row_names(rows)[0]
    branches = Batch(
        prompt_ids=Ragged.of([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4]]),
        response_ids=Ragged.of([[6], [7], [8]]),
        prefix=np.array([[name, 5], [name, 5], [name, 4]]),
    )
    assert shared_prefixes(branches).tolist() == [[-1, 0], [0, 5], [0, 4]]
    both = join_batches([branches, rows | Batch(prefix=no_prefix(1))])
    assert shared_prefixes(both).tolist() == [[3, 5], [3, 5], [3, 4], [-1, 0]]


def test_samples_of_a_prompt_share_it_where_nothing_else_is_said() -> None:
    rows = Batch(prompt_ids=Ragged.of([[1, 2], [5], [1, 2]]), response_ids=Ragged.of([[3], [3], [4]]))
    assert shared_prefixes(rows).tolist() == [[-1, 0]] * 3
    assert shared_prefixes(rows | Batch(group_id=np.array([7, 1, 7]))).tolist() == [[-1, 0], [-1, 0], [0, 2]]


def test_samples_of_a_prompt_share_it_where_the_column_says_nothing_of_them() -> None:
    """As the first turns of two conversations; and a flow may have given samples of a group other prompts."""
    rows = Batch(
        prompt_ids=Ragged.of([[1, 2, 3], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 9], [8]]),
        response_ids=Ragged.of([[4], [5], [6], [7], [7]]),
        group_id=np.array([3, 3, 3, 3, 3]),
    )
    assert shared_prefixes(rows).tolist() == [[-1, 0], [0, 3], [0, 3], [0, 2], [-1, 0]]
    turns = no_prefix(5)
    turns[2] = row_names(rows)[0], 4
    assert shared_prefixes(rows | Batch(prefix=turns)).tolist() == [[-1, 0], [0, 3], [0, 4], [0, 2], [-1, 0]]


def test_rows_that_were_changed_are_refused() -> None:
    rows = Batch(prompt_ids=Ragged.of([[1, 2], [1, 2, 3]]), prefix=no_prefix(2))
    prefix = np.array([[0, 0], [row_names(rows)[0], 2]])
    sound = Batch(prompt_ids=rows["prompt_ids"], prefix=prefix)
    assert shared_prefixes(sound).tolist() == [[-1, 0], [0, 2]]
    changed = Batch(prompt_ids=Ragged.of([[1, 2], [9, 2, 3]]), prefix=prefix)
    with pytest.raises(ValueError, match="prefix of row 1 says that it begins with 2 tokens of row 0"):
        shared_prefixes(changed)
    too_many = Batch(prompt_ids=rows["prompt_ids"], prefix=np.add(prefix, [[0, 0], [0, 1]]))
    with pytest.raises(ValueError, match="begins with 3 tokens"):
        shared_prefixes(too_many)


def test_names_are_of_the_tokens_and_not_of_where_prompt_and_response_meet() -> None:
    whole = Batch(prompt_ids=Ragged.of([[1, 2, 3], [1, 2]]))
    cut = Batch(prompt_ids=Ragged.of([[1, 2], [1]]), response_ids=Ragged.of([[3], [2]]))
    assert row_names(whole).tolist() == row_names(cut).tolist() and len({*row_names(whole).tolist()}) == 2
    assert shared_prefixes(Batch(prompt_ids=Ragged.of([]), prefix=no_prefix(0))).tolist() == []
