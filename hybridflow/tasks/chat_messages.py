"""Messages of a chat, as tasks and files give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybridflow.errors import shown

Message = Mapping[str, Any]
"""One turn of a chat: `{"role": "user", "content": "…"}`."""


def checked(messages: Any) -> list[Message]:
    """Return a chat's messages, parts of text joined. Raises ValueError naming what is no message."""
    if isinstance(messages, np.ndarray):  # as a table read from Parquet has them
        messages = messages.tolist()
    if isinstance(messages, Mapping):
        raise ValueError(
            f"the prompt is one message, {shown(dict(messages))}; a chat is a list of them: put it into [ ]"
        )
    if not isinstance(messages, Sequence) or isinstance(messages, bytes):
        kind = type(messages).__name__
        raise ValueError(
            f"the prompt is {shown(messages)}, of type {kind}; a text or a list of chat messages was expected"
        )
    if not messages:
        raise ValueError("the prompt is a chat without messages")
    return [_checked_message(number, message) for number, message in enumerate(messages)]


def call_of(name: str, arguments: Mapping[str, Any], number: int = 0, call_id: str = "") -> dict[str, Any]:
    """Return a call of a function as OpenAI has it.

    Args:
        number: of the call in its chat; unless it has an id, it is given one of nine letters, which all templates take.
    """
    function = {"name": name, "arguments": arguments}
    return {"id": call_id or f"call{number:05d}", "type": "function", "function": function}


def is_prefill(last: Message) -> bool:
    """Tell whether a chat that ends in this message continues in it."""
    return last["role"] == "assistant" and isinstance(last.get("content"), str) and not last.get("tool_calls")


def _checked_message(number: int, message: Any) -> Message:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ValueError(f'message {number} is {shown(message)}; {{"role": "user", "content": "…"}} was expected')
    content = message.get("content")
    if isinstance(content, str) or (content is None and message.get("tool_calls")):
        return message
    if isinstance(content, Sequence) and content and all(_is_text(part) for part in content):
        return {**message, "content": "".join(part["text"] for part in content)}
    raise ValueError(f"message {number} ({message['role']}) has the content {shown(content)}; a text was expected")


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
