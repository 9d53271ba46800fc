"""Task `addition_calls`: sums of three numbers in chats, for a model that may call a calculator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np

from hybridflow.bounds import Bounds
from hybridflow.tasks.chat_messages import Message, call_of
from hybridflow.tasks.hash_splits import MAX_OPERAND, Fraction, share_of_pair, split_pairs
from hybridflow.tasks.task import Example, Task, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS = ("call", "read", "answer")  # of rows of the warm-up, a third each
TOOL = "calculator"
THIRD = 10**9  # makes a number of a share; its last digits are taken, as the first ones tell the split


@tasks.register("addition_calls")
class AdditionCalls(Task):
    """Sums of three numbers, each of `digits` digits: the user says `571+682+394`, and `1647` is the answer.

    Only sums with a digit more than that are asked for. With a carry of 0, 1 or 2 at each digit, a small model does not
    learn them in minutes; to copy numbers it does, as all are equally long, so that each digit of a call stands as many
    tokens after the prompt's as in any other call, and each digit of an answer after what the call gave.

    The warm-up shows how a calculator is called, in the form of the chat template, and not that it should be: of three
    rows one calls it, one answers at once, and one says what a call gave. That is any number there: if it were the sum,
    a model might add instead of reading.

    Args:
        digits: of each number.
        held_out_fraction: of the pairs that sums begin with; `a+b` and `b+a` are always in the same split.
        warmup_fraction: of the sums in `train`, those in `warmup`.

    Rows of the warm-up raise ValueError if the chat template writes no calls.
    """

    grader = "exact"
    source_names = frozenset({""})
    is_local = True

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        digits: Annotated[int, Bounds(at_least=1, at_most=len(str(MAX_OPERAND)))] = 3,
        held_out_fraction: Fraction = 0.1,
        warmup_fraction: Fraction = 0.25,
    ) -> None:
        super().__init__(tokenizer)
        low, high = 10 ** (digits - 1), 10**digits - 1
        pairs = split_pairs("addition_calls", low, high, held_out_fraction, warmup_fraction)
        self._sums = {split: _with_third(ab, low, high) for split, ab in pairs.items()}

    def size(self, split: str) -> int:
        return len(self._sums[split])

    def example(self, split: str, index: int) -> Example:
        a, b, c = self._sums[split][index].tolist()
        asked: list[Message] = [{"role": "user", "content": f"{a}+{b}+{c}"}]
        answer = str(a + b + c)
        sample_id = a * (MAX_OPERAND + 1) + b
        kind = KINDS[index % len(KINDS)] if split == "warmup" else "answer"
        if kind == "answer":
            return Example(asked, answer, sample_id)
        call = call_of(TOOL, {"expression": asked[0]["content"]})
        turn: Message = {"role": "assistant", "content": "", "tool_calls": [call]}
        if kind == "call":
            return Example(asked, answer, sample_id, response=self._written(asked, turn))
        given = str(self._sums[split][(index + 1) % self.size(split)].sum())
        told: Message = {"role": "tool", "content": given, "tool_call_id": call["id"]}
        return Example([*asked, turn, told], answer, sample_id, response=given)

    def _written(self, asked: list[Message], turn: Message) -> str:
        """Return what the chat template writes of a turn that calls, without the turn's end."""
        template = self.encoder.template
        whole = template.rendered([*asked, turn], goes_on=None)
        if TOOL not in whole.removeprefix(begun := template.begun(asked)):
            raise ValueError(
                "the chat template writes no calls of functions; `hybridflow model addition --calls` makes a model "
                "whose template does"
            )
        return whole.removeprefix(begun).removesuffix(template.after_turn)


def _with_third(pairs: np.ndarray, low: int, high: int) -> np.ndarray:
    """Add a third number to pairs, [n, 2], and return those whose sum is longer than the numbers, [m, 3].

    It follows from the first two, so that a sum of `warmup` is one of `train` too, with the same id.
    """
    share = share_of_pair(pairs[:, 0], pairs[:, 1])
    third = low + (share * THIRD).astype(np.int64) % (high - low + 1)
    sums = np.column_stack([pairs, third])
    return sums[sums.sum(axis=1) > high]
