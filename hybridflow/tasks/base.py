"""What a task and a grader are, and their registries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from hybridflow.batch import Batch, Ragged
from hybridflow.errors import ConfigError
from hybridflow.options import faults, given
from hybridflow.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Grader = Callable[[str, str], float]
"""`grader(response, answer)` is the grade of a response text, 1.0 being right. It is pure, and imports no torch."""

Message = dict[str, str]
"""One turn of a chat: `{"role": "user", "content": "…"}`."""

SPLITS = ("train", "held_out", "warmup")

graders: Registry[Grader] = Registry("grader", "hybridflow.tasks.builtin_graders")


@dataclass(frozen=True)
class Example:
    """One question.

    Attributes:
        prompt: plain text, or the messages of a chat, which the tokenizer's own chat template puts into words.
        answer: what the grader compares with, and what supervised training teaches.
        sample_id: the same number for the same question in any split; it seeds the row's random stream.
    """

    prompt: str | Sequence[Message]
    answer: str
    sample_id: int


class Task(ABC):
    """A source of questions with known answers, in three splits.

    `train` is what reinforcement learning sees; `warmup`, a part of it, is what supervised training sees; `held_out`
    shares no question with them. Invariants: `example` is a pure function of its arguments and of the options, so a
    resumed run sees the same questions; and the first n rows of a split are a fair sample of it.

    A task gives `size` and `example`, and takes its options as keyword arguments of its constructor.
    """

    grader: ClassVar[str]
    """The registered name of the grader that fits."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    @abstractmethod
    def size(self, split: str) -> int:
        """How many rows a split has."""

    @abstractmethod
    def example(self, split: str, index: int) -> Example:
        """Row `index` of a split; 0 <= index < size(split)."""

    def rows(self, split: str, indices: ArrayLike) -> Batch:
        """Those rows: `prompt_ids` (ragged int64), `answer` ([R] str) and `sample_id` ([R] int64).

        Raises:
            ValueError: there is no such split.
            IndexError: a row number is outside the split.
        """
        examples = self._examples(split, indices)
        return Batch(
            prompt_ids=Ragged.of([self.encode(e.prompt) for e in examples], np.int64),
            answer=np.array([e.answer for e in examples], dtype=object),
            sample_id=np.array([e.sample_id for e in examples], dtype=np.int64),
        )

    def supervised(self, split: str, indices: ArrayLike) -> Batch:
        """`rows` with `response_ids` (ragged int64): the answer and the end-of-sequence token."""
        batch = self.rows(split, indices)
        responses = [self.ended(answer) for answer in batch.dense("answer")]
        return batch | Batch(response_ids=Ragged.of(responses, np.int64))

    def ended(self, answer: str) -> list[int]:
        """Token ids of a whole response: the text and the end. Raises ValueError if the tokenizer has no end."""
        eos = self.tokenizer.eos_token_id
        if eos is None:
            raise ValueError("the tokenizer has no eos_token: a supervised response cannot be ended; give it one")
        return [*self.encode(answer), eos]

    def encode(self, prompt: str | Sequence[Message]) -> list[int]:
        """Token ids of a text, or of a chat up to where the assistant's turn begins.

        Raises ValueError for a character that the tokenizer has no token for, or a chat if it has no chat template.
        """
        if isinstance(prompt, str):
            return self._encode(prompt)
        if not self.tokenizer.chat_template:
            raise ValueError(
                "this task speaks in chat messages, but the tokenizer has no chat template: use a chat model"
            )
        return self._encode(
            self.tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
        )

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        # A vocabulary of this size does not hold every byte, and what it does not hold is left out in silence.
        if len(self.tokenizer) < 256 and self.tokenizer.decode(ids) != text:
            lost = sorted(set(text) - set(self.tokenizer.decode(ids)))
            raise ValueError(
                f"the tokenizer has no tokens for {lost} in {text!r}: use a model with a larger vocabulary"
            )
        return ids

    def _examples(self, split: str, indices: ArrayLike) -> list[Example]:
        if split not in SPLITS:
            raise ValueError(f"no split is named {split!r}; there are {', '.join(SPLITS)}")
        size = self.size(split)
        numbers = np.asarray(indices, dtype=np.int64).tolist()
        outside = [n for n in numbers if not 0 <= n < size]
        if outside:
            raise IndexError(f"row {outside[0]} of split {split!r}, which has rows 0 to {size - 1}")
        return [self.example(split, n) for n in numbers]


tasks: Registry[type[Task]] = Registry(
    "task", *(f"hybridflow.tasks.{name}" for name in ("addition", "addition_pairs", "addition_sevens", "word_sums"))
)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Are these options of that task, all that it needs, and within their bounds? Needs no tokenizer.

    Raises:
        KeyError: there is no such task.
        ValueError: an option is unknown (the message names the nearest and all), missing, of another type or out of
            its bounds.
    """
    wrong = [f"{option}: {trouble}" for option, trouble in faults(tasks.get(name), options).items()]
    if wrong:
        raise ValueError(f"options of task {name!r}: {'; '.join(wrong)}")


def build(name: str, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> Task:
    """The task of that name. Raises KeyError if there is none, ConfigError if its options are not right."""
    part = tasks.get(name)
    try:
        check_options(name, options)
        return part(tokenizer, **given(part, options))
    except ValueError as error:
        raise ConfigError(f"task.options: {error}") from error
