"""Task `addition`: sums of two numbers, a token a character."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hybridflow.bounds import NotNegativeInt
from hybridflow.tasks.hash_splits import MAX_OPERAND, Fraction, Operand, split_pairs
from hybridflow.tasks.task import Example, Task, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ALPHABET = "0123456789+="


@tasks.register("addition")
class Addition(Task):
    """Sums of two numbers: `57+68=` is answered by `125`, for all pairs of numbers from 0 to `max_operand`.

    Args:
        max_operand: the largest number, at most 999.
        held_out_fraction: of all sums; `a+b` and `b+a` are always in the same split.
        warmup_fraction: of the sums in `train`, those in `warmup`.
        reverse_answer: the answer's digits least significant first: `521`.
        zero_pad: numbers as wide as the largest: `07+68=` is answered by `075`. With `reverse_answer`, every digit of
            the answer then depends on the two above it and a carry, which a small model learns in a minute.
        last_digits: of the sum, only so many of its last digits are asked for; 0: all of them.

    Raises ValueError for fewer digits than none.
    """

    grader = "exact"
    source_names = frozenset({""})
    is_local = True

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_operand: Operand = 99,
        held_out_fraction: Fraction = 0.1,
        warmup_fraction: Fraction = 0.25,
        reverse_answer: bool = False,
        zero_pad: bool = False,
        last_digits: NotNegativeInt = 0,
    ) -> None:
        super().__init__(tokenizer)
        self._last_digits = last_digits
        self.reverse_answer = reverse_answer
        self._width = len(str(max_operand)) if zero_pad else 0
        self._pairs = split_pairs("addition", 0, max_operand, held_out_fraction, warmup_fraction)

    def size(self, split: str) -> int:
        return len(self._pairs[split])

    def example(self, split: str, index: int) -> Example:
        a, b = self._pairs[split][index].tolist()
        width = self._width
        answer = f"{a + b:0{max(width and width + 1, self._last_digits)}d}"[-self._last_digits :]
        sample_id = a * (MAX_OPERAND + 1) + b
        return Example(f"{a:0{width}d}+{b:0{width}d}=", answer[::-1] if self.reverse_answer else answer, sample_id)
