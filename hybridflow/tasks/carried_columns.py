"""What travels with a question beside its prompt and answer: `metadata`, `messages` and `source`, for graders and logs.

A batch has such a column only if the rows of its task have something in it, and object columns hold texts; so a mapping
or a chat is its JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridflow.errors import shown
from hybridflow.tasks.chat_messages import checked

if TYPE_CHECKING:
    from hybridflow.tasks.task import Example

NOTHING: Mapping[str, str] = {"metadata": "{}", "messages": "[]", "source": ""}
"""By column, the entry of a row that has nothing in it."""


def carried(example: Example) -> dict[str, str]:
    """Return by column what travels with an example. Raises ValueError for metadata that JSON cannot say."""
    if not isinstance(example.source, str):
        raise ValueError(f"the source is {shown(example.source)}, of type {type(example.source).__name__}, not a text")
    return {
        "metadata": _mapping(example.metadata),
        "messages": NOTHING["messages"] if isinstance(example.prompt, str) else chat_text(example.prompt),
        "source": example.source,
    }


def chat_text(messages: Any) -> str:
    """Return the JSON text of a chat's messages. Raises ValueError naming what is no message."""
    return _json([dict(message) for message in checked(messages)], "a message")


def _mapping(metadata: object) -> str:
    if not isinstance(metadata, Mapping):
        raise ValueError(
            f"the metadata is {shown(metadata)}, of type {type(metadata).__name__}; a mapping was expected"
        )
    return _json(dict(metadata), "the metadata") if metadata else NOTHING["metadata"]


def _json(value: object, what: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_of_numpy)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} cannot be written as JSON: {error}") from error


def _of_numpy(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{shown(value)} is of type {type(value).__name__}")
