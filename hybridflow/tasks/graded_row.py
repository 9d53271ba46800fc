"""Rows that graders are given, and grades with parts that they may give. Both travel as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class GradedRow:
    """Response to be graded, with all that is known of it.

    Attributes:
        response: its text, without special tokens.
        answer: the known answer, a text.
        prompt: its text, without special tokens.
        messages: the prompt as a chat, if it is one: mappings with `role`, `content` and whatever else they have.
        metadata: other fields of the row, as the task gave them.
        source: the name of where the row came from, or "".
        finish_reason: why it ended: `end`, `stop` or `length`; "" if nobody knows.
        truncated: whether that reason is `length`.
        raw_response: its text with special tokens.
        response_tokens: how many tokens it has.
        sample_id: the name of the question.
        turn_rewards: of a conversation, what its environment gave each token: a turn's reward at its last, else 0.
        environment_failure: why its environment failed, or "".
    """

    response: str
    answer: str
    prompt: str = ""
    messages: Sequence[Mapping[str, Any]] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    finish_reason: str = ""
    truncated: bool = False
    raw_response: str = ""
    response_tokens: int = 0
    sample_id: int | str = ""
    turn_rewards: Sequence[float] = ()
    environment_failure: str = ""


@dataclass(frozen=True)
class Grade:
    """Grade of a response with more than one number.

    Attributes:
        value: the grade: one finite number that float32 can hold.
        parts: numbers that it is made of, by name; each becomes a metric.
        token_rewards: a value for each token of the response, beside `value`; () for none.
        step_rewards: values of steps, each as (the number of characters of `response` at which it ends, value); they
            are put on the token with which a step ends, on top of `token_rewards`.

    A grader that gives values of tokens or steps is registered with `token_rewards=True`.
    """

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    token_rewards: Sequence[float] = ()
    step_rewards: Sequence[tuple[int, float]] = ()
