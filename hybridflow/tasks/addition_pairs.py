"""Task `addition_pairs`: the sums of `addition`, each answer beside a wrong one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hybridflow.bounds import Count, Level, NotNegativeInt
from hybridflow.tasks.addition import ALPHABET, Addition
from hybridflow.tasks.hash_splits import Fraction, Operand
from hybridflow.tasks.preference_task import PreferenceTask
from hybridflow.tasks.task import Example, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@tasks.register("addition_pairs")
class AdditionPairs(Addition, PreferenceTask):
    """Preferences over answers to sums: the right one is chosen, and `wrong_answer` makes the rejected one.

    A split is that of `addition`, `wrong_answers` times over: the same sums, each time with another wrong answer.

    Args:
        wrong_answers: number of wrong answers to each sum.
        near_misses: share of the wrong answers that are the right one with digits changed; see `wrong_answer`.
        max_operand, held_out_fraction, warmup_fraction, reverse_answer, zero_pad, last_digits: as in `addition`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        wrong_answers: Count = 8,
        near_misses: Level = 0.5,
        max_operand: Operand = 99,
        held_out_fraction: Fraction = 0.1,
        warmup_fraction: Fraction = 0.25,
        reverse_answer: bool = False,
        zero_pad: bool = False,
        last_digits: NotNegativeInt = 0,
    ) -> None:
        super().__init__(
            tokenizer, max_operand, held_out_fraction, warmup_fraction, reverse_answer, zero_pad, last_digits
        )
        self.wrong_answers = wrong_answers
        self.near_misses = near_misses

    def size(self, split: str) -> int:
        return super().size(split) * self.wrong_answers

    def example(self, split: str, index: int) -> Example:
        return super().example(split, index % super().size(split))

    def rejected(self, split: str, index: int) -> str:
        right = self.example(split, index)
        return wrong_answer(
            right.answer, np.random.default_rng((int(right.sample_id), self.turn(split, index))), self.near_misses
        )

    def turn(self, split: str, index: int) -> int:
        """Return the number of a row among the pairs of its sum, from 0."""
        return index // super().size(split)


def wrong_answer(right: str, rng: np.random.Generator, near: float = 0.5) -> str:
    """Draw an answer that is not `right`: a near miss, or anything that a policy can say, the empty text included.

    A reward model knows what to think of that only if it has seen it: one that had not gave an empty answer more than a
    wrong digit, and PPO exploited that.

    Args:
        right: digits, at least one.
        near: probability of a near miss: 1, 2, … or all of the digits changed, equally often. Otherwise the answer is
            characters of the alphabet, from none to one more than `right` has.
    """
    if rng.random() < near:
        places = rng.choice(len(right), int(rng.integers(1, len(right) + 1)), replace=False)
        moved = np.zeros(len(right), dtype=np.int64)
        moved[places] = rng.integers(1, 10, len(places))
        return "".join(str((int(digit) + by) % 10) for digit, by in zip(right, moved.tolist(), strict=True))
    answer = "".join(rng.choice(list(ALPHABET), int(rng.integers(0, len(right) + 2))))
    return answer if answer != right else wrong_answer(right, rng, near)
