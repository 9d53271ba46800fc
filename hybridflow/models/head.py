"""Heads that stand on top of a decoder."""

from __future__ import annotations

from enum import StrEnum

VALUE_HEAD = "value_head.weight"
SCORE_HEAD = "score.weight"


class Head(StrEnum):
    """Output of a model for its hidden states: the next token, the value of a state, or the score of a row."""

    lm = "lm"
    value = "value"
    reward = "reward"

    @property
    def weight(self) -> str | None:
        """Name of the scalar head's tensor; None for a language model, whose output layer depends on its shape.

        No Hugging Face causal model has a value head. A reward model's has the name of transformers' classifiers.
        """
        return {Head.value: VALUE_HEAD, Head.reward: SCORE_HEAD}.get(self)
