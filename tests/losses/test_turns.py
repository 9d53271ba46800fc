"""Advantages of turns against loops over the turns of a group."""

from __future__ import annotations

import statistics
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybridflow.batch.turn_rows import TURN_INDEX
from hybridflow.losses.advantages import AdvantageInputs, estimator
from hybridflow.losses.turns import Turns

TURN = st.lists(st.floats(-2, 2, width=16), min_size=1, max_size=3)  # the rewards of its tokens
ROW = st.tuples(st.integers(0, 2), st.dictionaries(st.integers(0, 4), TURN, max_size=4))
ROWS = st.lists(ROW, max_size=8)
Rows = list[tuple[int, dict[int, list[float]]]]  # the group of each, and its turns by their numbers


def build_inputs(rows: Rows) -> AdvantageInputs:
    tokens = [(turn, reward) for _, turns in rows for turn in sorted(turns) for reward in turns[turn]]
    return AdvantageInputs(
        torch.tensor([reward for _, reward in tokens], dtype=torch.float32),
        torch.tensor([sum(map(len, turns.values())) for _, turns in rows], dtype=torch.int64),
        group_id=torch.tensor([group for group, _ in rows], dtype=torch.int64),
        columns={TURN_INDEX: torch.tensor([turn for turn, _ in tokens], dtype=torch.int64)},
    )


def at_tokens(rows: Rows, advantages: list[dict[int, float]]) -> Tensor:
    """What was found for each turn, at each of its tokens."""
    return torch.tensor(
        [
            found[turn]
            for (_, turns), found in zip(rows, advantages, strict=True)
            for turn in sorted(turns)
            for _ in turns[turn]
        ],
        dtype=torch.float32,
    )


def process_supervision(rows: Rows, *, normalize: bool) -> list[dict[int, float]]:
    """DeepSeekMath, section 4.1.3, a step being a turn."""
    found = []
    for group, turns in rows:
        steps = [sum(rewards) for other, its in rows if other == group for rewards in its.values()]
        mean = statistics.mean(steps) if steps else 0.0
        scale = (statistics.stdev(steps) if len(steps) > 1 else 0.0) + 1e-6 if normalize else 1.0
        normalized = {turn: (sum(rewards) - mean) / scale for turn, rewards in turns.items()}
        found.append({turn: sum(value for later, value in normalized.items() if later >= turn) for turn in turns})
    return found


def leave_one_out(rows: Rows) -> list[dict[int, float]]:
    """The reward to come from a turn on, less the mean of it in the others that have a turn of that number."""
    to_come = [
        {turn: sum(sum(rewards) for later, rewards in turns.items() if later >= turn) for turn in turns}
        for _, turns in rows
    ]
    found: list[dict[int, float]] = []
    for row, (group, turns) in enumerate(rows):
        found.append({})
        for turn in turns:
            others = [
                to_come[other][turn]
                for other, (its, _) in enumerate(rows)
                if other != row and its == group and turn in to_come[other]
            ]
            found[row][turn] = to_come[row][turn] - statistics.mean(others) if others else 0.0
    return found


@settings(max_examples=40)
@given(ROWS, st.booleans())
def test_grpo_of_turns_is_process_supervision(rows: Rows, normalize: bool) -> None:
    inputs = build_inputs(rows)
    found, returns = estimator("grpo", {"per_turn": True, "normalize_std": normalize})(inputs)
    torch.testing.assert_close(
        found, at_tokens(rows, process_supervision(rows, normalize=normalize)), rtol=1e-3, atol=1e-3
    )
    assert found.tolist() == returns.tolist()


@settings(max_examples=40)
@given(ROWS)
def test_rloo_of_turns_compares_what_is_to_come_of_the_same_turn(rows: Rows) -> None:
    found, returns = estimator("rloo", {"per_turn": True})(build_inputs(rows))
    torch.testing.assert_close(found, at_tokens(rows, leave_one_out(rows)), rtol=1e-4, atol=1e-4)
    assert found.tolist() == returns.tolist()


@pytest.mark.parametrize("name", ["grpo", "rloo"])
@settings(max_examples=40)
@given(rows=ROWS)
def test_a_response_is_one_turn(name: str, rows: Rows) -> None:
    """Without the column, and where every row has the one turn, both kinds are the same, bit for bit."""
    inputs = build_inputs(
        [(group, {0: [*chain.from_iterable(turns.values())]}) if turns else (group, {}) for group, turns in rows]
    )
    per_row, _ = estimator(name, {})(inputs)
    for columns in ({}, inputs.columns):
        same = AdvantageInputs(inputs.token_rewards, inputs.lengths, group_id=inputs.group_id, columns=columns)
        assert torch.equal(estimator(name, {"per_turn": True})(same)[0], per_row)


def test_a_conversation_that_ends_early_is_compared_where_it_has_turns() -> None:
    """Two rows of one turn and of three: the third turn is compared with nobody."""
    rows: Rows = [(0, {0: [1.0]}), (0, {0: [0.0, 0.5], 1: [0.25], 2: [1.0]}), (0, {0: [0.0], 1: [0.75]})]
    rloo, _ = estimator("rloo", {"per_turn": True})(build_inputs(rows))
    assert rloo.tolist() == [1.0 - 1.25, 1.75 - 0.875, 1.75 - 0.875, 1.25 - 0.75, 0.0, 0.75 - 1.375, 0.75 - 1.25]


def test_turns_are_found_where_some_are_not_learned_from() -> None:
    turns = Turns.of(torch.tensor([3, 0, 1]), torch.tensor([0, 2, 2, 1]))
    assert turns.lengths.tolist() == [1, 2, 0, 1] and turns.row.tolist() == [0, 0, 1, 2]
    assert turns.number.tolist() == [0, 2, 0, 1] and turns.per_row.tolist() == [2, 1, 1]
    assert turns.to_come(torch.tensor([1.0, 2.0, 4.0, 8.0])).tolist() == [3.0, 2.0, 4.0, 8.0]


def test_turns_in_no_order_are_refused() -> None:
    with pytest.raises(ValueError, match="turn_index of row 1 falls from 2 to 0"):
        Turns.of(torch.tensor([1, 2]), torch.tensor([3, 2, 0]))
