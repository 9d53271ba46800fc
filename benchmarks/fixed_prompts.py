"""Task whose prompts all have one length. For benchmarks: what rows cost does not depend on what they ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hybridflow.bounds import Count
from hybridflow.tasks.task import Example, Task, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUESTIONS = 4096
DIGITS = "0123456789"


@tasks.register("fixed_prompts")
class FixedPrompts(Task):
    """Strings of random digits, a token a character.

    Args:
        prompt_tokens: of each.
    """

    grader = "exact"
    source_names = frozenset({""})

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt_tokens: Count = 8) -> None:
        super().__init__(tokenizer)
        self._tokens = prompt_tokens

    def size(self, split: str) -> int:
        return QUESTIONS

    def example(self, split: str, index: int) -> Example:
        drawn = np.random.default_rng((index, len(split))).integers(0, len(DIGITS), self._tokens)
        return Example("".join(DIGITS[digit] for digit in drawn), "0", index)
