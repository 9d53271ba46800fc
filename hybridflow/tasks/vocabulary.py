"""Which ids are tokens of a model, and whether two models have the same tokens.

A model's vocabulary is the `vocab_size` of its config. Its tokenizer may know fewer tokens (the rest are padding, which
a policy can sample and which decodes to nothing) or more (added ones, which may rightly be unused). So the sizes say
little, and an id is refused where it comes up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Vocabulary:
    """The ids 0 to `size` - 1 of the model in a folder. `role`: who uses it, for messages."""

    folder: str
    size: int
    role: str = ""

    def stranger(self, ids: np.ndarray) -> int | None:
        """The place of the first id that is none of the model's; None if all are."""
        if not len(ids) or (ids.min() >= 0 and ids.max() < self.size):
            return None
        return int(np.flatnonzero((ids < 0) | (ids >= self.size))[0])

    def refuse_strangers(self, what: str, ids: np.ndarray) -> None:
        """Raise ValueError naming an id of `what` that is none of the model's."""
        place = self.stranger(ids)
        if place is not None:
            raise ValueError(f"{what} has {self.described(int(ids[place]))}")

    def described(self, id: int) -> str:
        """An id that is none of the model's, in words."""
        token = _token(self.folder, id)
        name = f"the token {token!r} (id {id})" if token is not None else f"the id {id}"
        owner = f"{self.folder} ({self.role})" if self.role else self.folder
        return (
            f"{name}, but the vocabulary of {owner} has {self.size} tokens, ids 0 to {self.size - 1}; use a model "
            "whose embedding has it, or leave this token out"
        )


def differences(folder: str | Path, other: str | Path) -> tuple[str | None, list[str]] | None:
    """How the tokenizer of another folder differs from that of the first; None if one of them has none to be read.

    Returns:
        In words, the first token or id that means one thing here and another there, or None; and the tokens that only
        the first has, in the order of their ids.
    """
    files = Path(folder) / "tokenizer.json", Path(other) / "tokenizer.json"
    if not all(file.is_file() for file in files):
        return None
    if files[0].read_bytes() == files[1].read_bytes():
        return None, []
    here, there = _tokens(folder), _tokens(other)
    named = {id: token for token, id in there.items()}
    for token, id in sorted(here.items(), key=lambda entry: entry[1]):
        if there.get(token, id) != id or named.get(id, token) != token:
            return f"id {id} is {token!r} in {folder}, but {named.get(id)!r} in {other}", []
    return None, [token for token in sorted(here, key=here.__getitem__) if token not in there]


def _tokens(folder: str | Path) -> dict[str, int]:
    from tokenizers import Tokenizer

    try:
        found: dict[str, int] = Tokenizer.from_file(str(Path(folder) / "tokenizer.json")).get_vocab()
    except Exception as error:  # the library raises no class of its own
        raise ValueError(f"{folder}: its tokenizer cannot be read: {str(error).splitlines()[0]}") from error
    return found


def _token(folder: str, id: int) -> str | None:
    """What the folder's tokenizer calls an id, if it has a tokenizer and that has the id."""
    try:
        return next((token for token, number in _tokens(folder).items() if number == id), None)
    except ValueError:
        return None
