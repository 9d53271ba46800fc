"""Log-probs of an update's own forward pass, for a loss whose rows bring no old ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.columns import offsets_of
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.dispatch.known_columns import OLD_LOG_PROBS
from hybridflow.engines.outputs import MicroBatch, TokenOutputs
from hybridflow.losses.loss import Loss
from hybridflow.tasks.grades import learnable


@dataclass(frozen=True)
class ScoredRows:
    """Rows with what a forward pass says of their T learned tokens, end to end; on ranks without outputs, no rows."""

    rows: Batch
    log_probs: np.ndarray
    entropy: np.ndarray


@dataclass
class OwnLogProbs:
    """Collects them, a micro-batch after the other.

    The policy before an update is the one that runs its forward pass: ratios to it are 1 to the last bit, in bfloat16
    too, where rows that are scored in other micro-batches get other last bits.
    """

    parts: list[tuple[np.ndarray, Tensor, Tensor]] = field(default_factory=list)

    def take(self, outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
        """Keep what a micro-batch gave; return its log-probs as old ones, [N] without gradients."""
        old = outputs.log_probs.detach()
        self.parts.append((micro.rows, old, outputs.entropy.detach()))
        return old

    def scored(self, batch: Batch) -> ScoredRows:
        """Return the rows of the update's `batch`, in the order in which they were taken."""
        if not self.parts:
            return ScoredRows(batch.select(np.arange(0)), np.zeros(0, np.float32), np.zeros(0, np.float32))
        rows, log_probs, entropy = zip(*self.parts, strict=True)
        return ScoredRows(batch.select(np.concatenate(rows)), _end_to_end(log_probs), _end_to_end(entropy))

    def taken(self, scored: ScoredRows) -> TakenLogProbs:
        """Return what is kept of the rows of the update, in its order, from what `scored` gave."""
        order = np.argsort(np.concatenate([np.zeros(0, np.int64), *(rows for rows, *_ in self.parts)]))
        learned = LearnedTokens.of(scored.rows)
        tokens = learned.responses.select(order).values
        log_probs = learned.spread(scored.log_probs).select(order)
        # No views of the rows: they would keep the store's memory until the next update.
        return TakenLogProbs(tokens.copy(), Ragged(log_probs.values, offsets_of(log_probs.lengths)))


@dataclass(frozen=True)
class TakenLogProbs:
    """Log-probs that an update took for old ones, until the next update: a few bytes a token, in host memory.

    Attributes:
        tokens: the responses of the update's rows, end to end, by which they are known.
        log_probs: over these; 0 at tokens that are not learned from.
    """

    tokens: np.ndarray
    log_probs: Ragged

    def of_rows(self, rows: Batch) -> Ragged:
        """Return them for the rows of a call that the update was asked with; all empty if these are others."""
        learned = np.flatnonzero(learnable(rows))
        asked = rows.ragged("response_ids").select(learned)
        lengths = np.zeros(len(rows), dtype=np.int64)
        same = np.array_equal(asked.offsets, self.log_probs.offsets) and np.array_equal(asked.values, self.tokens)
        if not same:
            return Ragged(self.log_probs.values[:0], offsets_of(lengths))
        lengths[learned] = self.log_probs.lengths
        return Ragged(self.log_probs.values, offsets_of(lengths))


NONE_TAKEN = TakenLogProbs(np.zeros(0, np.int64), Ragged(np.zeros(0, np.float32), offsets_of([])))


def lacks_old_log_probs(loss: Loss, batch: Batch) -> bool:
    """Tell whether a loss needs old log-probs that the rows do not bring."""
    return OLD_LOG_PROBS not in batch and loss.takes_own_log_probs()


def _end_to_end(parts: tuple[Tensor, ...]) -> np.ndarray:
    joined: np.ndarray = torch.cat(parts).float().cpu().numpy()
    return joined
