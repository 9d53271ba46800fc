"""Limits that a run sets to rows: how long they may be, and which ids are tokens of its models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hybridflow.batch import Batch
from hybridflow.errors import DataError
from hybridflow.tasks.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IDS = {"prompt_ids": "prompt", "response_ids": "response", "rejected_ids": "rejected response"}


@dataclass(frozen=True)
class Limits:
    """Limits that a run sets to the rows of a task.

    Attributes:
        tokens: maximum of a row's prompt and response together.
        response: tokens that are reserved for a response that is still to be sampled.
        vocabularies: of the models that see the rows.
        said: what sets `tokens`, as a key and its value.
    """

    tokens: int
    response: int
    vocabularies: Sequence[Vocabulary] = ()
    said: str = "rollout.max_sequence_tokens"

    def room(self, batch: Batch) -> np.ndarray:
        """Return the tokens that the prompt of each row may have, [R]."""
        sides = [batch.lengths(name) for name in ("response_ids", "rejected_ids") if name in batch]
        return self.tokens - (np.maximum.reduce(sides) if sides else np.full(len(batch), self.response))

    def too_long_message(self, batch: Batch, row: int) -> str:
        """Explain why a row is too long, and what can be done."""
        prompt = batch.lengths("prompt_ids")[row]
        room = self.room(batch)[row]
        taken = self.tokens - room
        what = "rollout.max_response_tokens" if "response_ids" not in batch else "its response"
        cure = "drop" if room < 1 else "drop or truncate_left"
        return (
            f"its prompt of {prompt} tokens is too long: {self.said} less {taken} for {what} leaves {max(room, 0)}; "
            f"raise it, or set task.too_long to {cure}"
        )


def truncated(ids: np.ndarray, max_tokens: int, opening: Sequence[int]) -> np.ndarray:
    """Keep the last tokens of a prompt; what opens a text (a BOS) stays before them."""
    if len(ids) <= max_tokens:
        return ids
    if opening and len(opening) < max_tokens and ids[: len(opening)].tolist() == opening:
        return np.concatenate([ids[: len(opening)], ids[len(opening) - max_tokens :]])
    return ids[-max_tokens:]


def check_ids(
    batch: Batch,
    split: str,
    place_of: Callable[[int], str],
    giver: str,
    vocabularies: Sequence[Vocabulary],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Check that the ids of rows are tokens of all models, and that every prompt has some.

    Args:
        place_of: names a row of the batch in messages.
        giver: what gave the rows, as `Task.rows`.

    Raises DataError naming a row.
    """
    for name in (name for name in IDS if name in batch):
        column = batch.ragged(name)
        if len(column) and column.values.dtype.kind not in "iu":
            raise DataError(f"split {split!r}: {name} of {giver} are {column.values.dtype}; integers were expected")
        if name == "prompt_ids" and len(column) and not column.lengths.min():
            raise DataError(f"{place_of(int(column.lengths.argmin()))}: its prompt has no tokens")
        for vocabulary in vocabularies:
            place = vocabulary.stranger(column.values)
            if place is not None:
                id = int(column.values[place])
                # Some tokens are added to a tokenizer only when it is read, so the vocabulary's folder may not say.
                token = tokenizer.convert_ids_to_tokens(id) if 0 <= id < len(tokenizer) else None
                row = place_of(int(np.searchsorted(column.offsets, place, side="right")) - 1)
                described = vocabulary.described(id, token)
                raise DataError(f"{row}: its {IDS[name]} has {described}")
