"""Trees of rows against sets of the rows' beginnings: what is counted once is there once, and budgets are kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.row_trees import KEYS, RowTrees, token_places
from hybridflow.batch.shared_prefix import row_tokens, shared_prefixes
from tests.batch.test_shared_prefix import BRANCHES, Branches, build_tree

UNITS = st.sampled_from([1, 2, 3])


def build_trees(rows: Batch, rows_per_unit: int = 1) -> RowTrees:
    return RowTrees.of(row_tokens(rows).lengths, shared_prefixes(rows), rows_per_unit)


def build_branches(branches: Branches, rows_per_unit: int) -> Batch:
    """Rows of `build_tree`, as many as whole units."""
    rows, _, _ = build_tree(branches)
    return rows.slice(0, len(rows) - len(rows) % rows_per_unit)


def build_groups(groups: list[tuple[int, list[int]]]) -> Batch:
    """Samples of prompts, of which all tokens differ: of each the prompt's length, and those of the responses."""
    numbers = iter(range(10**6))
    prompts, responses, group_id = [], [], []
    for group, (length, samples) in enumerate(groups):
        prompt = [next(numbers) for _ in range(length)]
        for sample in samples:
            prompts.append(prompt)
            responses.append([next(numbers) for _ in range(sample)])
            group_id.append(group)
    return Batch(
        prompt_ids=Ragged.of(prompts, np.int64),
        response_ids=Ragged.of(responses, np.int64),
        group_id=np.array(group_id, dtype=np.int64),
    )


GROUPS = st.lists(
    st.tuples(st.integers(1, 30), st.lists(st.integers(0, 12), min_size=1, max_size=6)), min_size=1, max_size=6
)


def plain_micro_batches(lengths: np.ndarray, budget: int, rows_per_unit: int) -> int:
    """How many there are where nothing is shared: longest first, a new one where the next does not fit."""
    count, room = 0, 0
    for unit in sorted(lengths.reshape(-1, rows_per_unit).sum(axis=1).tolist(), reverse=True):
        if unit > room:
            count, room = count + 1, budget
        room -= unit
    return count


@settings(max_examples=50)
@given(BRANCHES, UNITS)
def test_rows_beside_each_other_share_what_they_are_said_to(branches: Branches, rows_per_unit: int) -> None:
    rows = build_branches(branches, rows_per_unit)
    trees = build_trees(rows, rows_per_unit)
    tokens = [row.tolist() for row in row_tokens(rows)]
    assert sorted(trees.order.tolist()) == list(range(len(rows)))
    for place in range(1, len(rows)):
        count = trees.shared[place]
        before, row = (tokens[trees.order[at]] for at in (place - 1, place))
        assert row[:count] == before[:count] and count <= min(len(row), len(before))
    # Whatever two rows were found to share lies in the least number between them.
    place_of = {row: place for place, row in enumerate(trees.order.tolist())}
    for row, (at, count) in enumerate(shared_prefixes(rows).tolist()):
        if at >= 0:
            low, high = sorted((place_of[row], place_of[at]))
            assert trees.shared[low + 1 : high + 1].min() >= count


@settings(max_examples=50)
@given(GROUPS, st.data())
def test_tokens_that_differ_are_counted_once(groups: list[tuple[int, list[int]]], data: st.DataObject) -> None:
    """Of any choice of rows in any order."""
    rows = build_groups(groups)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, unique=True))
    whole = row_tokens(rows)
    assert build_trees(rows).unique_tokens(np.array(chosen)) == len({token for row in chosen for token in whole[row]})


@settings(max_examples=50)
@given(BRANCHES, st.data())
def test_places_lead_to_the_rows_own_tokens(branches: Branches, data: st.DataObject) -> None:
    rows = build_branches(branches, 1)
    trees = build_trees(rows)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, unique=True)))
    laid_out, shared = trees.layout(chosen)
    tokens = [row_tokens(rows)[row].tolist() for row in chosen[laid_out].tolist()]
    flat = [token for row, count in zip(tokens, shared.tolist(), strict=True) for token in row[count:]]
    assert len(flat) == trees.unique_tokens(chosen)
    places = token_places(trees.lengths[chosen[laid_out]], shared)
    assert [[flat[place] for place in row] for row in places] == tokens
    for row, count, path in zip(tokens, shared.tolist(), places, strict=True):
        assert np.diff(path[count:]).tolist() == [1] * max(len(row) - count - 1, 0)


@settings(max_examples=100)
@given(st.one_of(GROUPS.map(build_groups), BRANCHES.map(lambda it: build_tree(it)[0])), st.integers(1, 80), UNITS)
def test_micro_batches_are_within_the_budget_and_never_more_than_without(
    rows: Batch, budget: int, rows_per_unit: int
) -> None:
    rows = rows.slice(0, len(rows) - len(rows) % rows_per_unit)
    if not len(rows):
        return
    trees = build_trees(rows, rows_per_unit)
    found = trees.micro_batches(budget)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(rows)))
    for micro in found:
        units = micro.reshape(-1, rows_per_unit)
        assert (units[:, 0] % rows_per_unit == 0).all() and (np.diff(units, axis=1) == 1).all()
        load = max(trees.unique_tokens(micro), trees.lengths[micro].sum() / KEYS)
        assert load <= budget or len(units) == 1
    lengths = row_tokens(rows).lengths
    assert len(found) <= plain_micro_batches(lengths, budget, rows_per_unit)
    assert sum(map(trees.unique_tokens, found)) <= lengths.sum()


@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.integers(1, 40))
def test_rows_that_share_nothing_are_taken_longest_first(lengths: list[int], budget: int) -> None:
    rows = build_groups([(1, [length]) for length in lengths])
    order = np.concatenate(build_trees(rows).micro_batches(budget)).tolist()
    assert order == sorted(range(len(lengths)), key=lambda row: -lengths[row])


def test_a_tree_that_fits_is_whole() -> None:
    """Also where its rows are far apart, and a row of another length lies between theirs."""
    rows = build_groups([(10, [5, 1, 3]), (8, [4, 4]), (3, [1])]).select([0, 3, 5, 1, 4, 2])
    found = build_trees(rows).micro_batches(20)
    assert [sorted(micro.tolist()) for micro in found] == [[0, 3, 5], [1, 2, 4]]
    assert [*map(build_trees(rows).unique_tokens, found)] == [19, 20]


def test_a_tree_that_does_not_fit_is_cut_with_its_prefix_in_each_part() -> None:
    trees = build_trees(build_groups([(10, [4, 4, 4, 4, 4])]))
    found = trees.micro_batches(18)
    assert [micro.tolist() for micro in found] == [[0, 1], [2, 3], [4]]
    assert [*map(trees.unique_tokens, found)] == [18, 18, 14]


def test_a_long_prefix_of_many_short_rows_is_not_gathered_without_bound() -> None:
    """All 40 rows have 100 + 40 different tokens, and 4,040 whose keys they attend to."""
    found = build_trees(build_groups([(100, [1] * 40)])).micro_batches(200)
    assert [len(micro) for micro in found] == [15, 15, 10]


def test_whole_trees_give_way_where_they_would_make_more_micro_batches() -> None:
    """Trees of 7 fit into 12 one at a time, rows of 4 that share nothing three at a time."""
    rows = build_groups([(1, [3, 3])] * 3)
    trees = build_trees(rows)
    assert [len(micro) for micro in trees.micro_batches(12)] == [3, 3]
    assert [len(micro) for micro in trees.micro_batches(7)] == [2, 2, 2]


def test_rows_that_name_each_other_are_one_tree() -> None:
    """The column may say of two rows that each begins as the other."""
    trees = RowTrees.of(np.array([5, 6, 4]), np.array([[1, 3], [0, 3], [1, 4]]))
    assert trees.order.tolist() == [0, 1, 2] and trees.shared.tolist() == [0, 3, 4]
    assert trees.unique_tokens(np.arange(3)) == 8
