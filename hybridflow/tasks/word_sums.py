"""Task `word_sums`: sums and differences told as little stories, as chat messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np

from hybridflow.bounds import Bounds, Count
from hybridflow.tasks.hash_splits import MAX_OPERAND, Fraction, Operand, split_pairs
from hybridflow.tasks.task import Example, Task, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The larger number is `a`, so that a difference is never negative. Both are at least 2, so plurals are right.
SUMS = (
    "{name} has {a} {things} and buys {b} more. How many {things} does {name} have?",
    "{name} finds {b} {things} in the morning and {a} in the evening. How many {things} does {name} find in all?",
    "There are {a} {things} on the table and {b} under it. How many {things} are there together?",
    "{name} has {b} {things}. {friend} gives {name} {a} {things}. How many {things} does {name} have now?",
)
DIFFERENCES = (
    "{name} has {a} {things} and gives {b} of them to {friend}. How many {things} does {name} have left?",
    "There were {a} {things} in a box. {name} took {b} out. How many {things} are still in the box?",
)
ORDER = "Answer with just the number."
NAMES = ("Tom", "Anna", "Ben", "Mia", "Sam", "Lena", "Omar", "Ines", "Yuki", "Paul")
THINGS = ("apples", "books", "coins", "pencils", "marbles", "stickers", "shells", "buttons", "cards", "stones")


@tasks.register("word_sums")
class WordSums(Task):
    """Small stories, each made from its row's number; the numbers in them go from 2 to `max_operand`.

    No pair of numbers in a story of `held_out` is in a story of `train` or `warmup`.

    Args:
        max_operand: the largest number in a story, at most 999.
        held_out_fraction: of the pairs of numbers, those kept for `held_out`.
        train_rows, held_out_rows: stories in those splits.
        warmup_rows: the first of `train` that are also `warmup`.
        differences: tell of differences too, in one story of three.
    """

    grader = "last_number"
    source_names = frozenset({""})
    is_local = True

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_operand: Annotated[Operand, Bounds(at_least=3, at_most=MAX_OPERAND)] = 10,
        held_out_fraction: Fraction = 0.2,
        train_rows: Count = 10_000,
        held_out_rows: Count = 1_000,
        warmup_rows: Count = 1_000,
        differences: bool = True,
    ) -> None:
        super().__init__(tokenizer)
        self._sizes = {"train": train_rows, "held_out": held_out_rows, "warmup": warmup_rows}
        if min(self._sizes.values()) < 1 or warmup_rows > train_rows:
            raise ValueError(f"word_sums: rows {self._sizes}: each must be 1 or more, and warmup at most train")
        self._pairs = split_pairs("word_sums", 2, max_operand, held_out_fraction, warmup=0.5)
        self._templates = SUMS + DIFFERENCES if differences else SUMS

    def size(self, split: str) -> int:
        return self._sizes[split]

    def example(self, split: str, index: int) -> Example:
        held_out = split == "held_out"
        sample_id = 2 * index + held_out
        rng = np.random.default_rng(sample_id)
        pairs = self._pairs["held_out" if held_out else "train"]
        b, a = sorted(pairs[rng.integers(len(pairs))].tolist())
        template = self._templates[rng.integers(len(self._templates))]
        name, friend = (NAMES[i] for i in rng.choice(len(NAMES), size=2, replace=False))
        story = template.format(name=name, friend=friend, things=THINGS[rng.integers(len(THINGS))], a=a, b=b)
        answer = a - b if template in DIFFERENCES else a + b
        return Example([{"role": "user", "content": f"{story} {ORDER}"}], str(answer), sample_id)
