"""Turns of packed rows: which tokens of a conversation are one turn of the policy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hybridflow.batch.turn_rows import TURN_INDEX
from hybridflow.losses.segments import discounted, row_numbers


@dataclass(frozen=True)
class Turns:
    """Turns of R rows, U of them, in the order of their tokens. A row without tokens has one, which has none either.

    Attributes:
        lengths: [U] int64, tokens of each.
        row: [U] int64, the row that each is of.
        number: [U] int64, its number in the conversation; those of a row may have gaps, where nothing is learned from.
        per_row: [R] int64, how many turns each row has.
    """

    lengths: Tensor
    row: Tensor
    number: Tensor
    per_row: Tensor

    @staticmethod
    def of(lengths: Tensor, turn_index: Tensor | None) -> Turns:
        """Find the turns of rows.

        Args:
            lengths: [R] int64, tokens of each row.
            turn_index: [T] int64, the turn of each token; None: a row is one turn.

        Raises ValueError if the index of a row falls, so that its turns would not come one after the other.
        """
        if turn_index is None:
            rows = torch.arange(len(lengths), device=lengths.device)
            return Turns(lengths, rows, torch.zeros_like(rows), torch.ones_like(rows))
        row = row_numbers(lengths)
        falls = torch.nonzero((row[1:] == row[:-1]) & (turn_index[1:] < turn_index[:-1])).flatten()
        if len(falls):
            at = int(falls[0])
            before, after = turn_index[at : at + 2].tolist()
            raise ValueError(
                f"{TURN_INDEX} of row {int(row[at])} falls from {before} to {after}; give each token the number of its "
                "turn, and turns in their order"
            )
        empty = torch.nonzero(lengths == 0).flatten()
        keys = torch.stack([torch.cat([row, empty]), torch.cat([turn_index.long(), torch.zeros_like(empty)])], dim=1)
        turns, at = torch.unique(keys, dim=0, return_inverse=True)
        counts = torch.bincount(at[: len(row)], minlength=len(turns))
        return Turns(counts, turns[:, 0], turns[:, 1], torch.bincount(turns[:, 0], minlength=len(lengths)))

    def to_come(self, values: Tensor) -> Tensor:
        """Sum [U] values of turns, each to the end of its row."""
        return discounted(values, self.per_row, 1.0)
