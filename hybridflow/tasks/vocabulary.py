"""Vocabularies: which ids are tokens of a model, and whether two models have the same tokens.

A model's vocabulary is the `vocab_size` of its config. Its tokenizer may know fewer tokens (the rest are padding, which
a policy can sample and which decodes to nothing) or more (added ones, which may rightly be unused). So the sizes say
little, and an id is refused where it comes up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Vocabulary:
    """Ids 0 to `size` - 1 of the model in a folder. `role`: who uses it, for messages."""

    folder: str
    size: int
    role: str = ""

    def stranger(self, ids: np.ndarray) -> int | None:
        """Return the position of the first id that is not in the vocabulary; None if all are."""
        if not len(ids) or (ids.min() >= 0 and ids.max() < self.size):
            return None
        return int(np.flatnonzero((ids < 0) | (ids >= self.size))[0])

    def refuse_strangers(self, what: str, ids: np.ndarray) -> None:
        """Raise ValueError naming an id of `what` that is not in the vocabulary."""
        place = self.stranger(ids)
        if place is not None:
            raise ValueError(f"{what} has {self.described(int(ids[place]))}")

    def described(self, id: int, token: str | None = None) -> str:
        """Describe an id that is not in the vocabulary. `token`: what it is, if the caller's tokenizer knows it."""
        token = token if token is not None else _token(self.folder, id)
        name = f"the token {token!r} (id {id})" if token is not None else f"the id {id}"
        owner = f"{self.folder} ({self.role})" if self.role else self.folder
        return (
            f"{name}, but the vocabulary of {owner} has {self.size} tokens, ids 0 to {self.size - 1}; use a model "
            "whose embedding has it, or leave this token out"
        )


class Differences(NamedTuple):
    """Differences of another tokenizer from a first one.

    Attributes:
        ordinary: in words, the first id that is an ordinary token in either and means something else in the other.
        added: in words, by id, the added tokens of the first that are others, or none, in the other.
    """

    ordinary: str | None
    added: Mapping[int, str]


def differences(folder: str | Path, other: str | Path) -> Differences | None:
    """Compare the tokenizer of another folder with that of the first; None if one of them has none.

    Raises ValueError if one cannot be read.
    """
    files = Path(folder) / "tokenizer.json", Path(other) / "tokenizer.json"
    if not all(file.is_file() for file in files):
        return None
    if files[0].read_bytes() == files[1].read_bytes():
        return Differences(None, {})
    (here, mine), (there, theirs) = _tokens(folder), _tokens(other)
    added: dict[int, str] = {}
    for id in sorted(here.keys() | there.keys()):
        token = here.get(id)
        other_token = there.get(id)
        if token == other_token or token is None:  # what only the other has does not come up
            continue
        if id not in mine or not (other_token is None or id in theirs):
            return Differences(f"id {id} is {token!r} in {folder}, but {_named(other_token)} in {other}", added)
        added[id] = f"{token!r} (id {id}; there {_named(other_token)})"
    return Differences(None, added)


def _named(token: str | None) -> str:
    return "nothing" if token is None else repr(token)


def _tokens(folder: str | Path) -> tuple[dict[int, str], set[int]]:
    """Return a folder's tokens by id, and the ids of those that were added to an ordinary vocabulary."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    except Exception as error:  # the library raises no class of its own
        raise ValueError(f"{folder}: its tokenizer cannot be read: {str(error).splitlines()[0]}") from error
    return {id: token for token, id in tokenizer.get_vocab().items()}, {*tokenizer.get_added_tokens_decoder()}


def _token(folder: str, id: int) -> str | None:
    """Return what the folder's tokenizer calls an id, None if it has no tokenizer or that lacks the id."""
    try:
        return _tokens(folder)[0].get(id)
    except ValueError:
        return None
