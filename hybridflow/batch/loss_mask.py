"""`loss_mask`: the tokens of a response that are learned from.

It is a ragged column of 0 and 1 over the tokens of `response_ids`, and optional: without it every token is learned
from. A token with 0 (a tool's output, an environment's text, all of a response that was cut off) is context for the
tokens after it and nothing else. It is not scored, it has no reward, no advantage and no loss, and no mean counts it.

Formulas never see a mask. They get the learned tokens alone, end to end, as though the row had no others (`pick`);
what they give goes back to its place (`spread`). So a formula is right under a mask if it is right without one, a
user's too, and what a column says of other tokens cannot reach a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hybridflow.batch.batch import Batch
from hybridflow.batch.columns import Ragged

LOSS_MASK = "loss_mask"


def learned_rows(rows: Batch) -> np.ndarray:
    """Return [R] bool: True for rows that have a token to learn from; without a mask for all, the empty ones too.

    Raises ValueError as `LearnedTokens.of`, where the responses are among the columns: a row that is left out for its
    mask is not looked at again, so a wrong mask would pass for one of zeros.
    """
    if LOSS_MASK not in rows:
        return np.ones(len(rows), dtype=bool)
    if "response_ids" in rows:
        return LearnedTokens.of(rows).lengths > 0
    return learned_lengths(rows.ragged(LOSS_MASK)) > 0


def learned_lengths(mask: Ragged) -> np.ndarray:
    """Return the number of tokens that a mask leaves of each row, [R] int64."""
    return LearnedTokens(mask, mask.values.astype(bool)).lengths


@dataclass(frozen=True)
class LearnedTokens:
    """Learned tokens of R rows: those of their responses that `loss_mask` leaves.

    Attributes:
        responses: the rows' `response_ids`, T tokens in all.
        mask: [T] bool; None: all of them, as there is no `loss_mask`.
    """

    responses: Ragged
    mask: np.ndarray | None = None

    @staticmethod
    def of(rows: Batch) -> LearnedTokens:
        """Read the mask of rows. Raises ValueError for one that has other tokens than the responses, or not 0 and 1."""
        responses = rows.ragged("response_ids")
        if LOSS_MASK not in rows:
            return LearnedTokens(responses)
        mask = rows.ragged(LOSS_MASK)
        differing = np.flatnonzero(mask.lengths != responses.lengths)
        if len(differing):
            row = differing[0]
            raise ValueError(
                f"{LOSS_MASK} of row {row} has {mask.lengths[row]} entries and its response {responses.lengths[row]} "
                "tokens; give one entry a response token"
            )
        strange = mask.values[(mask.values != 0) & (mask.values != 1)]
        if len(strange):
            raise ValueError(f"{LOSS_MASK} has {strange[0]}; give 1 for a token that is learned from and 0 for others")
        return LearnedTokens(responses, mask.values.astype(bool))

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of learned tokens of each row, [R] int64."""
        if self.mask is None:
            return self.responses.lengths
        before = np.concatenate([[0], np.cumsum(self.mask, dtype=np.int64)])
        ends: np.ndarray = before[self.responses.offsets]
        return ends[1:] - ends[:-1]

    def select(self, rows: np.ndarray) -> LearnedTokens:
        """Return the learned tokens of the rows of these numbers, in their order."""
        responses = self.responses.select(rows)
        if self.mask is None:
            return LearnedTokens(responses)
        return LearnedTokens(responses, self.responses.like(self.mask).select(rows).values)

    def pick(self, column: Ragged) -> np.ndarray:
        """Take the values at the learned tokens out of a column over the responses."""
        return column.values if self.mask is None else column.values[self.mask]

    def spread(self, values: np.ndarray) -> Ragged:
        """Put values of the learned tokens back to their places, as a column over the responses; 0 at the others."""
        if self.mask is None:
            return self.responses.like(values)
        everywhere = np.zeros(len(self.mask), dtype=values.dtype)
        everywhere[self.mask] = values
        return self.responses.like(everywhere)
