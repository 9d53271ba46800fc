"""Calls of functions as a chat template has them written, read out of what the policy wrote.

A template writes calls that a chat has, in the form that its model was trained on. So that form is looked up in what it
writes of a call that we make up: what stands before and after the JSON of a call, and by which key it has arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hybridflow.errors import shown
from hybridflow.tasks.chat_messages import Message, call_of
from hybridflow.tasks.chat_template import ChatTemplate

NAME = "probe_function"
ARGUMENTS = {"probe_argument": "probe value"}
KEYS = ("arguments", "parameters")
ID = re.compile("[A-Za-z0-9]{9}")  # such as we make up, which all templates take: Mistral's refuses others
DEEPEST = 64  # levels of a call's JSON
QUESTION: Message = {"role": "user", "content": "first of all"}
Call = Mapping[str, Any]
"""A call as OpenAI has it, `{"id": …, "type": "function", "function": {"name": …, "arguments": {…}}}`; or, if what was
written is none, `{"problem": …}`."""


@dataclass(frozen=True)
class CallFormat:
    """Form of calls: `opening`, the JSON of one call or of a list of them, `closing`.

    Attributes:
        opening, closing: without white space at the ends; both "" where a turn that calls is JSON and nothing else.
        arguments: the key of the arguments.
    """

    opening: str
    closing: str
    arguments: str

    def calls(self, text: str) -> list[Call]:
        """Return the calls in a turn, with special tokens, in their order."""
        if not self.opening:
            value = _value(text.strip(), 0)
            return list(self._read(value, 0)) if value is not None and _is_call(value) else []
        found: list[Call] = []
        for piece in text.split(self.opening)[1:]:
            value = _value(piece, len(piece) - len(piece.lstrip()))
            if value is None:
                said = piece.partition(self.closing)[0] if self.closing else piece
                found.append({"problem": f"what follows {self.opening} is no JSON: {shown(said.strip())}"})
            else:
                found += self._read(value, len(found))
        return found

    def beside(self, text: str) -> str:
        """Return what a turn with calls says before them."""
        return text.partition(self.opening)[0].strip() if self.opening else ""

    def _read(self, value: Any, first: int) -> Iterator[Call]:
        for number, call in enumerate(value if isinstance(value, list) else [value], first):
            arguments = call.get(self.arguments, {}) if isinstance(call, dict) else None
            if isinstance(arguments, str):
                arguments = _value(arguments, 0)
            if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not isinstance(arguments, dict):
                wanted = json.dumps({"name": "…", self.arguments: {}}, ensure_ascii=False)
                yield {"problem": f"{shown(call)} is no call; {wanted} was expected"}
            else:
                written = call.get("id")
                known = written if isinstance(written, str) and ID.fullmatch(written) else ""
                yield call_of(call["name"], arguments, number, known)


def find_format(template: ChatTemplate) -> CallFormat:
    """Find the form in which a template writes calls. Raises ValueError if it writes none, or none in JSON."""
    turn: Message = {"role": "assistant", "content": "", "tool_calls": [call_of(NAME, ARGUMENTS)]}
    text = template.rendered([QUESTION, turn], goes_on=None)
    if NAME not in text:
        raise ValueError("the chat template writes no calls of functions")
    begun = template.rendered([QUESTION], goes_on=False)
    after = template.after_turn
    start = len(begun) if text.startswith(begun) else 0
    for place in range(start, text.index(NAME)):
        if text[place] not in "[{":
            continue
        decoded = _decoded(text, place)
        if decoded is not None and _is_call(decoded[0]):
            value, end = decoded
            one = value[0] if isinstance(value, list) else value
            key = next((key for key in KEYS if key in one), "")
            if key:
                return CallFormat(text[start:place].strip(), text[end:].removesuffix(after).strip(), key)
    raise ValueError(f"the chat template writes calls of functions in a form that is not known: {shown(text[start:])}")


def _is_call(value: Any) -> bool:
    one = value[0] if isinstance(value, list) and value else value
    return isinstance(one, dict) and isinstance(one.get("name"), str)


def _value(text: str, place: int) -> Any:
    """Return the JSON value at a place; None if there is none."""
    decoded = _decoded(text, place)
    return None if decoded is None else decoded[0]


def _decoded(text: str, place: int) -> tuple[Any, int] | None:
    try:
        decoded: tuple[Any, int] = json.JSONDecoder().raw_decode(text, place)
    except (ValueError, RecursionError):  # a policy may repeat a bracket as long as it has tokens
        return None
    return None if _deeper(decoded[0], DEEPEST) else decoded


def _deeper(value: Any, levels: int) -> bool:
    """Tell whether a value has more levels than that: to write it again could take a deeper stack than there is."""
    if not isinstance(value, dict | list):
        return False
    return not levels or any(_deeper(one, levels - 1) for one in (value.values() if isinstance(value, dict) else value))
