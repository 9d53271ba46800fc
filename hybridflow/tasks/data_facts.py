"""What can be said of the rows of a task before a run: columns, lengths, what cannot be used, what comes twice."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from hybridflow.errors import OTHER_REASON
from hybridflow.tasks.encoder import Message
from hybridflow.tasks.preference_task import PreferenceTask
from hybridflow.tasks.reading_progress import ReadingProgress
from hybridflow.tasks.task import Example, Task, named_row
from hybridflow.tasks.written_numbers import as_text

LOOKED_AT = 32  # rows that tell whether there are pairs


class Measure(Protocol):
    """Lengths of a row in one unit."""

    unit: str

    def prompt(self, example: Example) -> int:
        """Measure what a model is asked. Raises ValueError if it cannot be asked."""
        ...

    def answer(self, example: Example, text: str) -> int:
        """Measure an answer with its end. Raises ValueError if it cannot be said."""
        ...


class Characters:
    """Lengths in characters, of the texts alone: what a template writes around them is not known."""

    unit = "characters"

    def __init__(self, task: Task) -> None:
        self._form = task.chat_form

    def prompt(self, example: Example) -> int:
        prompt = self._form.apply(example.prompt)
        return len(prompt) if isinstance(prompt, str) else sum(len(turn.get("content") or "") for turn in prompt)

    def answer(self, example: Example, text: str) -> int:
        return len(text)


class Tokens:
    """Lengths in tokens, as a run has them."""

    unit = "tokens"

    def __init__(self, task: Task) -> None:
        self._task = task

    def prompt(self, example: Example) -> int:
        return len(self._task.encode(example.prompt))

    def answer(self, example: Example, text: str) -> int:
        return len(self._task.encoder.answer(example.prompt, text))


@dataclass
class Column:
    """Field of the rows: how many have it, and of which types."""

    rows: int = 0
    types: Counter[str] = field(default_factory=Counter)


class Fault(NamedTuple):
    """Reason for which rows cannot be used: how many, and the first of them in words."""

    rows: int
    first: str


@dataclass
class Facts:
    """Facts of the rows of one split.

    Attributes:
        size: rows of the split.
        read: rows of it that were read.
        prompts, answers, rejected: their lengths, of the rows that can be used; `rejected` of pairs only.
        malformed: by reason.
        repeated: rows whose question an earlier one has.
        questions: a digest of each question.
    """

    split: str
    size: int
    read: int = 0
    columns: dict[str, Column] = field(default_factory=dict)
    sources: Counter[str] = field(default_factory=Counter)
    prompts: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    malformed: dict[str, Fault] = field(default_factory=dict)
    repeated: int = 0
    questions: set[bytes] = field(default_factory=set)

    def too_long(self, tokens: int, response: int) -> tuple[int, int]:
        """Count the rows that do not fit: prompts that leave no room for a response, and prompts with their answers."""
        prompts = np.array(self.prompts, dtype=np.int64)
        answers = np.array(self.answers, dtype=np.int64)
        whole = prompts + (np.maximum(answers, np.array(self.rejected, dtype=np.int64)) if self.rejected else answers)
        return int((prompts > tokens - response).sum()), int((whole > tokens).sum())


def read_facts(task: Task, split: str, measure: Measure, at_most: int = 0) -> Facts:
    """Read the rows of a split, or the first `at_most` of them (0: all)."""
    size = task.size(split)
    facts = Facts(split, size, min(size, at_most) if at_most else size)
    pairs = has_pairs(task, split)
    progress = ReadingProgress(f"reading {split}", facts.read)
    for number in range(facts.read):
        if not number % 1024:
            progress.at(number)
        try:
            with named_row(task, split, number):
                _take_in(facts, task, number, measure, pairs)
        except ValueError as error:
            reason = getattr(error, "reason", OTHER_REASON)
            known = facts.malformed.get(reason, Fault(0, str(error)))
            facts.malformed[reason] = known._replace(rows=known.rows + 1)
    return facts


def _take_in(facts: Facts, task: Task, number: int, measure: Measure, pairs: bool) -> None:
    for name, value in task.raw_row(facts.split, number).items():
        column = facts.columns.setdefault(name, Column())
        if value is not None:
            column.rows += 1
            column.types[kind_of(value)] += 1
    example = task.example(facts.split, number)
    prompt = measure.prompt(example)
    answer = measure.answer(example, taught(example))
    task.check_answer(as_text(example.answer), example.source)
    task.check_metadata(example.metadata, example.source)
    if pairs:
        assert isinstance(task, PreferenceTask)
        facts.rejected.append(measure.answer(example, as_text(task.rejected(facts.split, number))))
    facts.prompts.append(prompt)
    facts.answers.append(answer)
    digest = question_digest(example.prompt)
    facts.repeated += digest in facts.questions
    facts.questions.add(digest)
    if example.source:
        facts.sources[example.source] += 1


def taught(example: Example) -> str:
    """Return the text that supervised training teaches."""
    return as_text(example.answer if example.response is None else example.response)


def has_pairs(task: Task, split: str) -> bool:
    """Tell whether a split is one of pairs: nearly all of its first rows have a rejected answer."""
    if not isinstance(task, PreferenceTask):
        return False
    looked_at = min(task.size(split), LOOKED_AT)
    pairs = 0
    for number in range(looked_at):
        try:
            task.rejected(split, number)
        except ValueError:  # none, or a row that cannot be read
            continue
        pairs += 1
    return pairs >= max(1, 0.9 * looked_at - 1)


def kind_of(value: object) -> str:
    """Name the type of a value as JSON has it."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool | np.bool_):
        return "boolean"
    if isinstance(value, int | float | np.number):
        return "number"
    if isinstance(value, Mapping):
        return "object"
    if isinstance(value, Sequence | np.ndarray):
        parts = list(value)
        return "chat" if parts and all(isinstance(part, Mapping) and "role" in part for part in parts) else "list"
    return type(value).__name__


def question_digest(prompt: str | Sequence[Message]) -> bytes:
    """Return 16 bytes that are the same for the same question, white space at the ends of its texts aside."""
    text = prompt.strip() if isinstance(prompt, str) else [_stripped(message) for message in prompt]
    return hashlib.blake2b(json.dumps(text, sort_keys=True, default=str).encode(), digest_size=16).digest()


def _stripped(message: Message) -> dict[str, Any]:
    content = message.get("content")
    return {**message, "content": content.strip() if isinstance(content, str) else content}


class Bar(NamedTuple):
    """Bar of a histogram: lengths from `first` to `last`, and how many rows have them."""

    first: int
    last: int
    rows: int


def histogram(lengths: Iterable[int], bars: int = 8) -> list[Bar]:
    """Count lengths in bars of one width, a number that begins with 1, 2 or 5; [] if there are none."""
    values = np.fromiter(lengths, dtype=np.int64)
    if not len(values):
        return []
    low = int(values.min())
    high = int(values.max())
    width = next(size for size in _widths() if high // size - low // size < bars)
    begin = low // width
    counts = np.bincount(values // width - begin)
    return [Bar((begin + n) * width, (begin + n + 1) * width - 1, int(count)) for n, count in enumerate(counts)]


def _widths() -> Iterable[int]:
    unit = 1
    while True:
        yield from (unit, 2 * unit, 5 * unit)
        unit *= 10
