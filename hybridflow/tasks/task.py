"""Tasks and graders, and their registries."""

from __future__ import annotations

import inspect
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from hybridflow.batch import Batch, Ragged
from hybridflow.errors import OTHER_REASON, ConfigError, DataError, HybridFlowError, shown
from hybridflow.options import effective_options, faults
from hybridflow.registry import Registry
from hybridflow.tasks.carried_columns import NOTHING, carried
from hybridflow.tasks.chat_template import ChatForm
from hybridflow.tasks.encoder import Encoder, Message
from hybridflow.tasks.grader_registry import Answers, Metadata, graders
from hybridflow.tasks.row_order import Curriculum, Portion
from hybridflow.tasks.written_numbers import as_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLITS = ("train", "held_out", "warmup")


@dataclass(frozen=True)
class Example:
    """Question with its known answer.

    Attributes:
        prompt: plain text, or the messages of a chat, which the tokenizer's own chat template renders. A chat whose
            last turn is the assistant's is continued in that turn.
        answer: what the grader compares with, and what supervised training teaches; a number stands for its text.
        sample_id: the same for the same question in any split: an integer of any size, or a string.
        metadata: whatever else is known of the row, as JSON can say it; graders see it and `rollouts/` has it.
        source: the name of where the row came from, by which results are told apart.
        response: what supervised training teaches, if that is not the answer alone.
    """

    prompt: str | Sequence[Message]
    answer: str
    sample_id: int | str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    response: str | None = None


class Task(ABC):
    """Source of questions with known answers, in three splits.

    `train` is what reinforcement learning sees; `warmup`, a subset of it, is what supervised training sees; `held_out`
    shares no question with them. Invariants: `example` is a pure function of its arguments and of the options, so a
    resumed run sees the same questions; and the first n rows of a split are a fair sample of it.

    A task implements `size` and `example`, and takes its options as keyword arguments of its constructor.
    """

    grader: str = ""
    """The registered name of the grader that fits; of a run's task, of the one that it uses."""

    metadata_checks: Callable[[str], Sequence[Metadata]] = staticmethod(lambda source: ())
    """What the graders of a run say on a row's metadata, by its source, each raising ValueError."""

    answer_checks: Callable[[str], Sequence[Answers]] | None = None
    """Gives by the source of a row what the graders of a run say on its answer, each raising ValueError; None: what
    `grader` says without options."""

    template_options: Mapping[str, Any] = MappingProxyType({})
    """Variables of the tokenizer's chat template, from `task.chat_template_kwargs`."""

    chat_form: ChatForm = ChatForm()
    """What a run makes of each prompt, from `task.system_prompt`, `task.as_chat` and `task.prefill`."""

    carries: frozenset[str] = frozenset()
    """Those of `metadata`, `messages` and `source` that its rows have, as far as is known; an example adds to them."""

    question_hashes: Mapping[str, np.ndarray] | None = None
    """By split, hashes of what its rows ask, [n] uint64, as `question_index` makes them; None where nobody knows."""

    source_names: frozenset[str] | None = None
    """Of the sources that its rows have, "" for rows without one; None: nobody knows before they are read."""

    fingerprint: str = ""
    """Of all that its rows ask and answer, in their order, where they come from files that may change; a resumed run
    compares it."""

    is_local: ClassVar[bool] = False
    """It makes its rows, or reads them from files that its options name, without a server or a download: `hybridflow
    plan` looks at some."""

    _asked: dict[tuple[str, int], Example] | None = None

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def encoder(self) -> Encoder:
        """Encode text as token ids by the tokenizer's own conventions."""
        return Encoder(self.tokenizer, self.template_options, self.chat_form)

    @abstractmethod
    def size(self, split: str) -> int:
        """Return the number of rows of a split."""

    @abstractmethod
    def example(self, split: str, index: int) -> Example:
        """Return row `index` of a split; 0 <= index < size(split)."""

    def row_place(self, split: str, index: int) -> str:
        """Name a row in a message: by its number, or by where its source has it."""
        return f"row {index} of split {split!r}"

    def suspects(self, split: str) -> Sequence[int]:
        """Return the numbers of rows that are already known to be unusable; they are looked at before the start."""
        return ()

    def notes(self) -> Sequence[str]:
        """Return what a user should know of the rows before a run, a line each."""
        return ()

    def rows(self, split: str, indices: ArrayLike) -> Batch:
        """Return rows with `prompt_ids` (ragged int64), `answer` ([R] str) and `sample_id` ([R] int or str).

        And, where the task's rows have any: `metadata` and `messages` (the chat of the prompt), [R] str of JSON, and
        `source` ([R] str).

        Raises:
            DataError, a ValueError: a row cannot be used; the message names it.
            ValueError: there is no such split.
            IndexError: a row number is outside the split.
        """
        prompts = []
        answers = []
        ids = []
        more = []
        for number, example in self._examples(split, indices):
            with named_row(self, split, number):
                answers.append(as_text(example.answer))
                if split != "warmup":  # which nobody grades
                    self.check_answer(answers[-1], example.source)
                    self.check_metadata(example.metadata, example.source)
                prompts.append(self.encode(example.prompt))
                if not prompts[-1]:
                    raise ValueError(f"the prompt {shown(example.prompt)} has no tokens; at least one was expected")
                ids.append(_plain_id(example.sample_id))
                more.append(carried(example))
        # Once known, a column stays: batches of one run are joined, and must not differ in what columns they have.
        self.carries |= {name for row in more for name, entry in row.items() if entry != NOTHING[name]}
        return Batch(
            prompt_ids=Ragged.of(prompts, np.int64),
            answer=np.array(answers, dtype=object),
            sample_id=np.array(ids, dtype=object),
            **{name: np.array([row[name] for row in more], dtype=object) for name in NOTHING if name in self.carries},
        )

    def supervised(self, split: str, indices: ArrayLike) -> Batch:
        """Return `rows` with `response_ids` (ragged int64): the response, or else the answer, and its end."""
        with self._each_example_once():
            batch = self.rows(split, indices)
            answers = batch.dense("answer").tolist()
            given = [example.response for _, example in self._examples(split, indices)]
            texts = [answer if text is None else text for text, answer in zip(given, answers, strict=True)]
            return batch | Batch(response_ids=self.responses(split, indices, texts))

    def responses(self, split: str, indices: ArrayLike, texts: Sequence[str]) -> Ragged:
        """Return token ids of a text for each row, with the end that a response to its prompt has. Raises as `rows`."""
        token_ids = []
        for (number, example), text in zip(self._examples(split, indices), texts, strict=True):
            with named_row(self, split, number):
                token_ids.append(self.encoder.answer(example.prompt, as_text(text)))
        return Ragged.of(token_ids, np.int64)

    def portions(self, split: str) -> Sequence[Portion]:
        """Return the sources that a split's rows come from, if training takes them in shares of their own; else ()."""
        return ()

    def training_curriculum(self, split: str) -> Curriculum | None:
        """Return by what training sorts a split's rows; None if they are shuffled."""
        return None

    def raw_row(self, split: str, index: int) -> Mapping[str, Any]:
        """Return the fields of a row by name as its source has them, for `hybridflow data`.

        A task without another source has its example's. Raises DataError if the row cannot be read.
        """
        example = self.example(split, index)
        return {"prompt": example.prompt, "answer": example.answer, "sample_id": example.sample_id, **example.metadata}

    def rows_origin(self) -> str:
        """Say where the rows are from and how they are read, for `hybridflow data`; "" if the name says it."""
        return ""

    def encode(self, prompt: str | Sequence[Message]) -> list[int]:
        """Return the token ids of a prompt, as `Encoder.prompt` does."""
        return self.encoder.prompt(prompt)

    def check_answer(self, answer: Any, source: str = "") -> None:
        """Raise ValueError for what a grader of rows of this source says cannot be an answer."""
        for check in self._answer_checks() if self.answer_checks is None else self.answer_checks(source):
            check(answer)

    def check_metadata(self, metadata: Mapping[str, Any], source: str = "") -> None:
        """Raise ValueError for metadata that a grader of rows of this source cannot grade with."""
        for check in self.metadata_checks(source):
            check(metadata)

    def _answer_checks(self) -> Sequence[Answers]:
        """Return what the task's own grader says; one that has to be made says so only when a run has made it."""
        grader = graders.get(self.grader) if self.grader in graders else None
        check = None if inspect.isclass(grader) else getattr(grader, "check_answer", None)
        return [check] if check else []

    def _examples(self, split: str, indices: ArrayLike) -> Iterator[tuple[int, Example]]:
        if split not in SPLITS:
            raise ValueError(f"no split is named {split!r}; there are {', '.join(SPLITS)}")
        size = self.size(split)
        numbers = np.asarray(indices, dtype=np.int64).tolist()
        outside = [n for n in numbers if not 0 <= n < size]
        if outside:
            raise IndexError(f"row {outside[0]} of split {split!r}, which has rows 0 to {size - 1}")
        for number in numbers:
            example = self._asked.get((split, number)) if self._asked is not None else None
            if example is None:
                example = self._example(split, number)
                with named_row(self, split, number):
                    if not isinstance(example, Example):
                        raise ValueError(f"`example` gave a {type(example).__name__}; an Example was expected")
                    if self.chat_form != ChatForm():  # what travels as `messages` is what the model is asked
                        example = replace(example, prompt=self.chat_form.apply(example.prompt))
            if self._asked is not None:
                self._asked[split, number] = example
            yield number, example

    def _example(self, split: str, number: int) -> Example:
        try:
            with named_row(self, split, number):
                return self.example(split, number)
        except (HybridFlowError, OSError):  # a file or a server that is gone says nothing of this row
            raise
        except Exception as error:  # code of a user's met a row that is not as the others
            at = traceback.extract_tb(error.__traceback__)[-1]
            cause = "".join(traceback.format_exception_only(error)).strip()
            place = self.row_place(split, number)
            raise DataError(f"{place}: {cause} ({at.filename}:{at.lineno})") from error

    @contextmanager
    def _each_example_once(self) -> Iterator[None]:
        """Keep the examples that are made in the block: its columns are made one after the other, of the same rows."""
        if self._asked is not None:
            yield
            return
        self._asked = {}
        try:
            yield
        finally:
            self._asked = None


def _plain_id(sample_id: object) -> int | str:
    """Return a sample id without numpy's types. Raises ValueError for anything but an integer or a string."""
    if isinstance(sample_id, np.integer | np.str_):
        sample_id = sample_id.item()
    if not isinstance(sample_id, int | str):
        kind = type(sample_id).__name__
        raise ValueError(f"the sample_id is {shown(sample_id)}, of type {kind}; an integer or a string was expected")
    return sample_id


@contextmanager
def named_row(task: Task, split: str, number: int) -> Iterator[None]:
    """Turn a ValueError into a DataError that names the row, unless it is one already."""
    try:
        yield
    except DataError:
        raise
    except ValueError as error:
        reason = getattr(error, "reason", OTHER_REASON)
        raise DataError(f"{task.row_place(split, number)}: {error}", reason=reason) from error


tasks: Registry[type[Task]] = Registry(
    "task",
    *(
        f"hybridflow.tasks.{name}"
        for name in (
            "addition",
            "addition_calls",
            "addition_pairs",
            "addition_sevens",
            "guess",
            "mixture",
            "openenv_task",
            "reasoning_gym_task",
            "rows_task",
            "verifiers_task",
            "word_sums",
        )
    ),
    of=Task,
)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Check that a task takes these options, has all that it needs, and their values are within bounds. Needs no
    tokenizer.

    Raises:
        KeyError: there is no such task.
        ValueError: an option is unknown (the message names the nearest and all), missing, of another type or out of
            its bounds.
    """
    wrong = [f"{option}: {trouble}" for option, trouble in faults(tasks.get(name), options).items()]
    if wrong:
        raise ValueError(f"options of task {name!r}: {'; '.join(wrong)}")


def build(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    options: Mapping[str, Any],
    *,
    grader: str | None = None,
    answer_checks: Callable[[str], Sequence[Answers]] | None = None,
    metadata_checks: Callable[[str], Sequence[Metadata]] | None = None,
    template_options: Mapping[str, Any] = MappingProxyType({}),
    chat_form: ChatForm | None = None,
) -> Task:
    """Build the task of a registered name.

    Args:
        grader: the one that grades its rows, if that is not the task's own.
        answer_checks, metadata_checks: see `Task`.
        template_options: variables of the tokenizer's chat template.
        chat_form: what a run makes of each prompt.

    Raises KeyError for an unknown name, ConfigError if the task cannot be made with these arguments.
    """
    part = tasks.get(name)
    try:
        check_options(name, options)
        task = part(tokenizer, **effective_options(part, options))
    except ValueError as error:
        raise ConfigError(f"task.options: {error}") from error
    if (hidden := hidden_method(task)) is not None:
        raise ConfigError(f"task.name: {name}: {hidden}")
    if not hasattr(task, "tokenizer"):
        raise ConfigError(f"task.name: {name}: it has no tokenizer; let its __init__ call super().__init__(tokenizer)")
    if grader is not None:
        task.grader = grader
    task.answer_checks = answer_checks
    if metadata_checks is not None:
        task.metadata_checks = metadata_checks
    task.template_options = template_options
    task.chat_form = chat_form or ChatForm()
    try:
        template = task.encoder.template
    except ValueError as error:
        raise ConfigError(f"task.chat_template_kwargs: {error}") from error
    try:
        template.check_form()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return task


def hidden_method(task: Task) -> str | None:
    """Return in words which attribute of a task hides a method of ours, as `self.rows = …` hides `rows(split,
    indices)`.
    """
    for cls in type(task).__mro__:
        for name, value in vars(cls).items() if cls.__module__.startswith("hybridflow.") else ():
            if callable(value) and not name.startswith("__") and not callable(getattr(task, name)):
                kind = type(getattr(task, name)).__name__
                return f"its attribute {name!r}, a {kind}, hides the method of that name; call it _{name}"
    return None
