"""Columns of a row by name, and what a format wants of them: a text, a chat, an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hybridflow.errors import shown
from hybridflow.tasks.chat_messages import Message, checked
from hybridflow.tasks.strict_json import RowError

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
"""Who speaks, as ShareGPT's files call them, in the words of chat templates."""

_PLACES = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


class Fields:
    """Columns of one row. `taken` are those that were asked for, by their names at the top."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.row = row
        self.taken: set[str] = set()

    def get(self, path: str) -> Any:
        """Return a column, or what is inside of it (`reward_model.ground_truth`, `turns.0`). RowError if it is not
        there.
        """
        if path in self.row:
            self.taken.add(path)
            return self.row[path]
        value: Any = self.row
        names = path.split(".")
        for depth, name in enumerate(names):
            if isinstance(value, Mapping) and name in value:
                value = value[name]
            elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
                value = value[int(name)]
            else:
                place = repr(".".join(names[:depth])) if depth else "the row"
                raise RowError(f"column {path!r} is missing; {place} {_contents(value)}", f"column {path!r} is missing")
        return value

    def has(self, path: str) -> bool:
        """Tell whether a column is there and not null."""
        try:
            return self.get(path) is not None
        except RowError:
            return False

    def text(self, path: str) -> str:
        """Return a column that is a text."""
        value = self.get(path)
        if not isinstance(value, str):
            raise wrong_type(path, value, "a text")
        return value

    def answer(self, path: str, *, any_json: bool = False) -> Any:
        """Return a column that is a text or a number; `any_json`: anything but null."""
        value = self.get(path)
        scalar = isinstance(value, str | int | float) and not isinstance(value, bool)
        if value is None or not (any_json or scalar):
            raise wrong_type(path, value, "a text or a number")
        return value

    def prompt(self, path: str) -> str | list[Message]:
        """Return a column that is a text or the messages of a chat."""
        value = self.get(path)
        if not isinstance(value, str | list):
            raise wrong_type(path, value, "a text or a list of chat messages")
        return value if isinstance(value, str) else self.chat(path)

    def chat(self, path: str) -> list[Message]:
        """Return a column that is the messages of a chat, also if they say `from` and `value`."""
        value = self.get(path)
        if not isinstance(value, list) or not value:
            raise wrong_type(path, value, "a list of chat messages")
        try:
            return checked([_message(path, number, turn) for number, turn in enumerate(value)])
        except RowError:
            raise
        except ValueError as error:
            raise RowError(f"column {path!r}: {error}", f"column {path!r} is no chat") from error

    def filled(self, template: str) -> str:
        """Return a template's text with each `{column}` replaced; `{{` and `}}` are braces."""

        def entry(place: re.Match[str]) -> str:
            if place[1] is None:
                return place[0][0]
            value = self.answer(place[1])
            return value if isinstance(value, str) else str(value)

        return _PLACES.sub(entry, template)


def check_template(template: str) -> None:
    """Raise ValueError for a template with a brace that is alone."""
    for place in _PLACES.finditer(template):
        if place[0] in "{}":
            raise ValueError(
                f"prompt_template: {shown(template)} has a {place[0]} alone at character {place.start() + 1}; write "
                f"{{column}} for a column and {place[0] * 2} for a brace"
            )


def wrong_type(path: str, value: object, expected: str) -> RowError:
    """Describe a column that is of another type."""
    found = "null" if value is None else f"{shown(value)}, {_kind(value)}"
    return RowError(f"column {path!r} is {found}; {expected} was expected", f"column {path!r} is no {expected[2:]}")


def _kind(value: object) -> str:
    kinds = {"NoneType": "null", "dict": "an object", "list": "a list", "str": "a text", "bool": "a boolean"}
    return kinds.get(type(value).__name__, f"of type {type(value).__name__}")


def _contents(value: object) -> str:
    """Say what there is where a column was looked for."""
    if isinstance(value, Mapping):
        return f"has {', '.join(map(str, value)) or 'no column'}"
    if isinstance(value, list):
        return f"is a list of {len(value)}"
    return f"is {_kind(value)}"


def _message(path: str, number: int, turn: object) -> Any:
    if not isinstance(turn, Mapping) or "from" not in turn:
        return {name: value for name, value in turn.items() if value is not None} if isinstance(turn, Mapping) else turn
    speaker = turn["from"]
    if not isinstance(speaker, str) or speaker.lower() not in ROLES:
        raise RowError(
            f"column {path!r}: turn {number} is from {shown(speaker)}; one of {', '.join(ROLES)} was expected",
            f"column {path!r} is no chat",
        )
    return {"role": ROLES[speaker.lower()], "content": turn.get("value")}


def common_start(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return how many entries two sequences have in common at their start."""
    shared = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        shared += 1
    return shared
