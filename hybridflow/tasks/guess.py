"""Task `guess`: numbers for the environment `guess`, which all are asked for alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hybridflow.bounds import Count
from hybridflow.tasks.task import Example, Task, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TIMES = {"train": 1000, "warmup": 250, "held_out": 1}  # that each number comes


@tasks.register("guess")
class Guess(Task):
    """Numbers from 0 to `highest`, each the answer to the same prompt.

    What is to be learned is how to ask, not an answer, so all splits have the same numbers: `held_out` each once.

    Args:
        highest: the largest number.
        prompt: what the policy is asked; "": in words.
    """

    grader = "environment"
    source_names = frozenset({""})
    is_local = True

    def __init__(self, tokenizer: PreTrainedTokenizerBase, highest: Count = 9, prompt: str = "") -> None:
        super().__init__(tokenizer)
        self._numbers = highest + 1
        self._prompt = prompt or (
            f"I think of a number from 0 to {highest}. Guess it! I tell you whether it is higher or lower."
        )

    def size(self, split: str) -> int:
        return self._numbers * TIMES[split]

    def example(self, split: str, index: int) -> Example:
        number = index % self._numbers
        # Of the id nothing is asked; that of a held-out row is no other's, as of all tasks.
        return Example(self._prompt, str(number), index if split != "held_out" else self.size("train") + index)
