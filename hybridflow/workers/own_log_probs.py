"""Log-probs of an update's own forward pass, for a loss whose rows bring no old ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hybridflow.batch import Batch
from hybridflow.dispatch.known_columns import OLD_LOG_PROBS
from hybridflow.engines.outputs import MicroBatch, TokenOutputs
from hybridflow.losses.loss import Loss


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


def lacks_old_log_probs(loss: Loss, batch: Batch) -> bool:
    """Tell whether a loss needs old log-probs that the rows do not bring."""
    return OLD_LOG_PROBS not in batch and loss.takes_own_log_probs()


def _end_to_end(parts: tuple[Tensor, ...]) -> np.ndarray:
    joined: np.ndarray = torch.cat(parts).float().cpu().numpy()
    return joined
