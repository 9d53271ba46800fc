"""Turns of conversations as rows: the same tokens to learn from, after the same tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.batch.shared_prefix import row_tokens, shared_prefixes
from hybridflow.batch.turn_rows import turn_rows
from hybridflow.batch.weight_versions import refuse_other_tokens

PART = st.integers(1, 3)  # tokens of a turn, or of what is said after it
TALK = st.tuples(st.lists(st.tuples(PART, PART), min_size=1, max_size=3), st.booleans())  # and whether it failed


def build_talks(talks: list[tuple[list[tuple[int, int]], bool]]) -> Batch:
    """Conversations whose tokens are all different; the last one's answer is left out."""
    parts: dict[str, list[list[Any]]] = {"response_ids": [], "loss_mask": [], "turn_index": [], "weight_version": []}
    for row, (turns, failed) in enumerate(talks):
        wrote = [(number, who) for number, pair in enumerate(turns) for who, n in enumerate(pair) for _ in range(n)]
        wrote = wrote[: len(wrote) - turns[-1][1]]
        parts["response_ids"].append([100 * row + 10 + at for at in range(len(wrote))])
        parts["loss_mask"].append([int(who == 0 and not failed) for _, who in wrote])
        parts["turn_index"].append([number for number, _ in wrote])
        parts["weight_version"].append([[3, 1], [4, len(wrote) - 1]] if len(wrote) > 1 else [[3, 1]])
    columns: dict[str, Any] = {name: Ragged.of(rows, np.int64) for name, rows in parts.items()}
    responses = columns["response_ids"]
    return Batch(
        prompt_ids=Ragged.of([[100 * row, 100 * row + 1] for row in range(len(talks))], np.int64),
        advantages=responses.like(responses.values / 7),
        rewards=np.arange(len(talks), dtype=np.float32),
        group_id=np.zeros(len(talks), dtype=np.int64),
        **columns,
    )


@settings(max_examples=50)
@given(st.lists(TALK, max_size=4))
def test_they_have_the_tokens_to_learn_from_and_all_before(talks: list[tuple[list[tuple[int, int]], bool]]) -> None:
    rows = build_talks(talks)
    turns = turn_rows(rows)
    assert len(turns) == sum(len(its) for its, failed in talks if not failed)
    assert turns.ragged("loss_mask").values.all()
    for column in ("response_ids", "advantages", "turn_index"):
        assert turns.ragged(column).values.tolist() == LearnedTokens.of(rows).pick(rows.ragged(column)).tolist()
    whole = [row.tolist() for row in row_tokens(rows)]
    for row, tokens in zip(turns.dense("rewards"), row_tokens(turns), strict=True):
        assert tokens.tolist() == whole[int(row)][: len(tokens)]
    if len(turns):
        refuse_other_tokens(turns.ragged("weight_version"), turns.lengths("response_ids"))
    expected = []
    for row, (tokens, earlier) in enumerate(zip(row_tokens(turns), [None, *row_tokens(turns)], strict=False)):
        first = earlier is None or tokens[0] != earlier[0]
        expected.append([-1, 0] if first else [row - 1, len(earlier)])
    assert shared_prefixes(turns).tolist() == expected


def test_a_turn_knows_the_versions_that_sampled_it() -> None:
    rows = build_talks([([(2, 1), (3, 1)], False)])
    assert [runs.tolist() for runs in turn_rows(rows).ragged("weight_version")] == [[[3, 1], [4, 1]], [[4, 3]]]
