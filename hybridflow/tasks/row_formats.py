"""Formats of rows that people have, as prompts with answers: by the names of their columns.

Sources: verl's data preparation, TRL's dataset formats, OpenRLHF's `input_key` and `output_key`, GSM8K's `#### 72`,
Stanford Alpaca, and the conversations of ShareGPT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hybridflow.tasks.chat_messages import Message
from hybridflow.tasks.row_fields import Fields, common_start, wrong_type
from hybridflow.tasks.strict_json import RowError

GSM8K_MARK = "####"
ANSWERS = frozenset({
    "answer", "completion", "expected_answer", "final_answer", "gold", "ground_truth", "label", "output", "reference",
    "response", "solution", "target",
})  # fmt: skip
"""What columns with answers are called."""

TURN = "\n\nAssistant:"  # before the last response of a text such as Anthropic's hh-rlhf


@dataclass(frozen=True)
class Question:
    """Row as a task understands it.

    Attributes:
        prompt: a text, or the messages of a chat.
        answer: what a grader compares with; None if nobody knows.
        response: what supervised training teaches, if that is not the answer.
        rejected: the worse response of a pair.
    """

    prompt: str | Sequence[Message]
    answer: Any = None
    response: str | None = None
    rejected: str | None = None


@dataclass(frozen=True)
class Format:
    """Way of reading a row.

    Attributes:
        name: its value of `task.options.format`. Several may share one: TRL has five kinds of rows.
        required: the columns that it needs.
        optional: those that it also reads where they are.
        read: makes the question. Raises RowError.
        source: the column that says where a row is from.
        fits: whether a row that has the columns can be one.
    """

    name: str
    required: tuple[str, ...]
    read: Callable[[Fields], Question]
    optional: tuple[str, ...] = ()
    source: str = ""
    fits: Callable[[Mapping[str, Any]], bool] = lambda row: True

    def columns_in(self, row: Mapping[str, Any]) -> frozenset[str]:
        """Return those columns of a row that it would read."""
        return frozenset(name for name in (*self.required, *self.optional) if name in row)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.required)})"


def _verl(fields: Fields) -> Question:
    truth = fields.answer("reward_model.ground_truth", any_json=True)
    return Question(fields.prompt("prompt"), truth)


def _pairs(fields: Fields) -> Question:
    prompt, chosen = _completed(fields.prompt("prompt"), fields, "chosen")
    _, rejected = _completed(fields.prompt("prompt"), fields, "rejected")
    return Question(prompt, chosen, rejected=rejected)


def _implicit_pairs(fields: Fields) -> Question:
    if isinstance(fields.get("chosen"), str):
        return _split_texts(fields.text("chosen"), fields.text("rejected"))
    chosen = fields.chat("chosen")
    rejected = fields.chat("rejected")
    shared = common_start(chosen, rejected)
    shared = min(shared, len(chosen) - 1, len(rejected) - 1)
    ends = chosen[shared:], rejected[shared:]
    if not shared or any(len(end) != 1 or end[0]["role"] != "assistant" for end in ends):
        raise RowError(
            "columns 'chosen' and 'rejected' are chats that do not differ in one last message of the assistant alone; "
            "the prompt is what they have in common",
            "no common prompt",
        )
    return Question(chosen[:shared], _content("chosen", ends[0][0]), rejected=_content("rejected", ends[1][0]))


def _split_texts(chosen: str, rejected: str) -> Question:
    """Split a pair of texts where their common beginning ends: at the assistant's turn, or between two words."""
    shared = common_start(chosen, rejected)
    at = chosen.rfind(TURN, 0, shared)
    if at >= 0:
        at += len(TURN)
    else:
        spaces = [place for place in range(shared) if chosen[place].isspace()]
        at = spaces[-1] if spaces else 0
    if not chosen[:at].strip():
        raise RowError(
            "columns 'chosen' and 'rejected' have no beginning in common; it is the prompt", "no common prompt"
        )
    return Question(chosen[:at], chosen[at:], rejected=rejected[at:])


def _completion(fields: Fields) -> Question:
    prompt, completion = _completed(fields.prompt("prompt"), fields, "completion")
    return Question(prompt, completion)


def _completed(prompt: str | Sequence[Message], fields: Fields, path: str) -> tuple[str | Sequence[Message], str]:
    """Return prompt and response. A response may be a chat: one message of the assistant, or the prompt before it."""
    if not isinstance(fields.get(path), list):
        return prompt, fields.text(path)
    *before, last = fields.chat(path)
    if last["role"] != "assistant":
        raise RowError(f"column {path!r} ends in a message of the {last['role']}, not the assistant", "no answer")
    if before:
        same = before[-1].get("content") == prompt if isinstance(prompt, str) else before == list(prompt)
        if not same:
            raise RowError(f"column {path!r} is a chat that does not begin with the prompt", "another prompt")
        prompt = before
    elif isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    return prompt, _content(path, last)


def _content(path: str, message: Message) -> str:
    content = message.get("content")
    if not isinstance(content, str):
        raise wrong_type(f"{path}.content", content, "a text")
    return content


def _answered(prompt: str, answer: str) -> Callable[[Fields], Question]:
    return lambda fields: Question(fields.prompt(prompt), fields.answer(answer))


def _only(prompt: str) -> Callable[[Fields], Question]:
    return lambda fields: Question(fields.prompt(prompt))


def _gsm8k(fields: Fields) -> Question:
    solution = fields.text("answer")
    _, mark, answer = solution.rpartition(GSM8K_MARK)
    if not mark or not answer.strip():
        raise RowError(f"column 'answer' has no answer after {GSM8K_MARK}", f"no {GSM8K_MARK}")
    return Question(fields.text("question"), answer.strip(), response=solution)


def _alpaca(fields: Fields) -> Question:
    given = fields.text("input") if fields.has("input") else ""
    instruction = fields.text("instruction")
    return Question(f"{instruction}\n\n{given}" if given.strip() else instruction, fields.text("output"))


def _sharegpt(fields: Fields) -> Question:
    turns = fields.chat("conversations")
    if fields.has("system") and turns[0]["role"] != "system" and fields.text("system"):
        turns = [{"role": "system", "content": fields.text("system")}, *turns]
    return chat_with_answer(turns, "conversations")


def chat_with_answer(turns: list[Message], path: str) -> Question:
    """Take the last message of the assistant for the answer; a chat that ends otherwise has none."""
    if turns[-1]["role"] != "assistant":
        return Question(turns)
    if len(turns) < 2:
        raise RowError(f"column {path!r} has a message of the assistant and no prompt before it", "no prompt")
    return Question(turns[:-1], _content(path, turns[-1]))


FORMATS = (
    Format("verl", ("prompt", "reward_model"), _verl, ("data_source",), source="data_source"),
    Format("trl", ("prompt", "chosen", "rejected"), _pairs),
    Format("trl", ("chosen", "rejected"), _implicit_pairs),
    Format("trl", ("prompt", "completion"), _completion),
    Format("trl", ("prompt", "answer"), _answered("prompt", "answer")),
    Format("trl", ("prompt",), _only("prompt")),
    Format("openrlhf", ("input", "output"), _answered("input", "output")),
    Format("openrlhf", ("input", "label"), _answered("input", "label")),
    Format("openrlhf", ("input",), _only("input")),
    Format("gsm8k", ("question", "answer"), _gsm8k, fits=lambda row: GSM8K_MARK in str(row.get("answer"))),
    Format(
        "qa",
        ("question", "answer"),
        _answered("question", "answer"),
        fits=lambda row: GSM8K_MARK not in str(row.get("answer")),
    ),
    Format("alpaca", ("instruction", "output"), _alpaca, ("input",)),
    Format("sharegpt", ("conversations",), _sharegpt, ("system",)),
    Format("messages", ("messages",), lambda fields: chat_with_answer(fields.chat("messages"), "messages")),
)
NAMES = tuple(dict.fromkeys(form.name for form in FORMATS))


def detect(row: Mapping[str, Any], name: str = "auto") -> Format:
    """Return the format of a row; of several, the one that reads all columns that another does, and more.

    Args:
        name: a format, or `auto` for any.

    Raises ValueError listing what was found and what fits, if none or more than one does.
    """
    fitting = [
        form
        for form in FORMATS
        if name in ("auto", form.name) and all(column in row for column in form.required) and form.fits(row)
    ]
    best = [form for form in fitting if not any(form.columns_in(row) < other.columns_in(row) for other in fitting)]
    if len(best) == 1:
        return best[0]
    columns = ", ".join(map(str, row)) or "none"
    if best:
        raise ValueError(
            f"format: the columns {columns} fit {' and '.join(map(str, best))}; name one: task.options.format="
            f"{best[0].name}"
        )
    known = "; ".join(str(form) for form in FORMATS if name in ("auto", form.name))
    raise ValueError(
        f"format: the columns {columns} fit {'no format' if name == 'auto' else f'not {name}'}; known are {known}. Or "
        "say which columns to take: task.options.columns.prompt=NAME task.options.columns.answer=NAME"
    )


OWN = ("prompt", "answer", "response", "chosen", "rejected", "source", "id")
"""What `task.options.columns` can name a column for."""


@dataclass(frozen=True)
class Mapper:
    """Reads rows by a format, by columns of the user's own, or by a format with some columns changed.

    Attributes:
        form: None if the columns say all.
        columns: a column's path, by what it is.
        template: a text with `{column}`s instead of the column of prompts.
    """

    form: Format | None
    columns: Mapping[str, str]
    template: str = ""

    def __str__(self) -> str:
        own = [f"{name} from {column!r}" for name, column in self.columns.items()]
        own += [f"prompt from {self.template!r}"] if self.template else []
        return "; ".join(([str(self.form)] if self.form else []) + own)

    def read(self, row: Mapping[str, Any]) -> tuple[Question, dict[str, Any], str, Any]:
        """Return the question of a row, its other columns, its source and its id, if it has one.

        Raises RowError if it has none.
        """
        fields = Fields(row)
        question = self._question(fields)
        own = self.columns
        source = own.get("source") or (self.form.source if self.form else "")
        said = fields.text(source) if source and (source == own.get("source") or fields.has(source)) else ""
        id = fields.answer(own["id"]) if own.get("id") else None
        rest = {name: value for name, value in row.items() if name not in fields.taken}
        return question, rest, said, id

    def _question(self, fields: Fields) -> Question:
        own = self.columns
        if self.form is not None:
            question = self.form.read(fields)
        else:
            prompt = fields.filled(self.template) if self.template else fields.prompt(own["prompt"])
            question = Question(prompt)
        if self.form is not None and (self.template or own.get("prompt")):
            prompt = fields.filled(self.template) if self.template else fields.prompt(own["prompt"])
            question = replace(question, prompt=prompt)
        for side in ("chosen", "rejected"):
            if own.get(side):
                asked, text = _completed(question.prompt, fields, own[side])
                question = replace(question, prompt=asked, **{"answer" if side == "chosen" else side: text})
        if own.get("answer"):
            question = replace(question, answer=fields.answer(own["answer"]))
        if own.get("response"):
            question = replace(question, response=fields.text(own["response"]))
        return question


def check_answered(mapper: Mapper, row: Mapping[str, Any]) -> None:
    """Raise ValueError if a row is read as a prompt alone, though a column is called as answers are.

    Raises RowError if the row cannot be read.
    """
    question, rest, _, _ = mapper.read(row)
    likely = [name for name in rest if name.lower() in ANSWERS]
    if question.answer is None and likely:
        alone = f", or say that there is none (task.options.format={mapper.form.name})" if mapper.form else ""
        raise ValueError(
            f"format: {mapper} reads no answer, but there is a column {likely[0]!r}; take it "
            f"(task.options.columns.answer={likely[0]}){alone}"
        )
