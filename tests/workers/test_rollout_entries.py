"""What a line of `rollouts/*.jsonl` has of a row's columns."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Batch, Ragged
from hybridflow.workers.rollout_entries import other_entries, our_entries, token_entries, token_texts


def build_rollout() -> Batch:
    return Batch(
        prompt_ids=Ragged.of([[1], [2]]),
        response_ids=Ragged.of([[3, 4], [5]]),
        old_log_probs=Ragged.of([[0.5, 0.5], [0.5]]),
        answer=["a", "b"],
        group_id=np.array([0, 1]),
        copy_id=np.array([0, 0]),
        rewards=np.array([1.0, np.nan], dtype=np.float32),
        weight_version=Ragged.of([[[7, 2]], [[7, 1]]]),
        metadata=['{"level": 3, "tags": ["x"]}', "{}"],
        messages=['[{"role": "user", "content": "hi"}]', "[]"],
        source=["gsm8k", ""],
        difficulty=np.array([0.25, 0.75]),
        process_reward=Ragged.of([[0.5, 1.0], [0.0]]),
        hidden=np.zeros((2, 3)),
        worker_object=[object(), object()],
        note=[None, {"why": "long"}],
    )


def test_metadata_and_messages_are_values_and_no_quoted_text() -> None:
    entries = other_entries(build_rollout(), 0)
    assert entries["metadata"] == {"level": 3, "tags": ["x"]}
    assert entries["messages"] == [{"role": "user", "content": "hi"}]
    assert entries["source"] == "gsm8k"


def test_columns_that_a_user_added_are_there_as_far_as_json_can_say_them() -> None:
    entries = other_entries(build_rollout(), 0)
    assert entries["difficulty"] == 0.25 and entries["process_reward"].tolist() == [0.5, 1.0]
    assert entries["note"] is None and other_entries(build_rollout(), 1)["note"] == {"why": "long"}
    assert set(entries) == {"metadata", "messages", "source", "difficulty", "process_reward", "note"}


def test_our_columns_of_tensors_stay_out() -> None:
    assert set(our_entries(build_rollout(), 0)) == {"answer", "rewards", "group_id", "weight_version"}


def test_a_user_s_column_called_metadata_that_is_no_json_stays_as_it_is() -> None:
    rows = Batch(metadata=["{broken", json.dumps({"a": 1})])
    assert [other_entries(rows, row)["metadata"] for row in (0, 1)] == ["{broken", {"a": 1}]


def test_tokens_are_written_one_by_one_with_what_is_known_of_each() -> None:
    rows = build_rollout() | Batch(advantages=Ragged.of([[1 / 3, -2.0], [0.0]]), values=Ragged.of([[1.0], [1.0]]))
    entry = token_entries(rows, 0, lambda ids: "".join("abcdef"[id] for id in ids))
    assert entry == {"text": ["d", "e"], "advantages": [0.333333, -2.0], "old_log_probs": [0.5, 0.5]}


@given(st.text(max_size=40))
def test_the_texts_of_tokens_are_together_the_text(text: str) -> None:
    """Of bytes too, of which several are one character: the last of them has it."""
    ids = list(text.encode())
    texts = token_texts(ids, lambda some: bytes(some).decode(errors="replace"))
    assert len(texts) == len(ids) and "".join(texts) == text


def test_a_character_that_is_never_completed_is_shown_as_broken() -> None:
    texts = token_texts(list("aé".encode())[:2], lambda some: bytes(some).decode(errors="replace"))
    assert texts == ["a", "\ufffd"]
