"""Learning rate of each update of a run: a warm-up, then a decay over the updates that are left."""

from __future__ import annotations

import math

from hybridflow.config.schema import Decay, OptimizerConfig


def learning_rate(update: int, settings: OptimizerConfig, updates: int) -> float:
    """Return the rate of an update, whose number begins at 0, in a run of so many `updates`.

    Update k of a warm-up of W has lr (k + 1) / W: no update is without effect, and the last has the full rate. After
    it, with s = (k - W) / (updates - W), the rate goes from `lr` at s = 0, which is one update too, towards `min_lr`,
    which would be that of the update after the last: min_lr + (lr - min_lr) (1 - s) for `linear`, and min_lr + (lr -
    min_lr) (1 + cos πs) / 2 for `cosine` (arXiv 1608.03983, equation 5). From W on these are the values of
    transformers' `get_polynomial_decay_schedule_with_warmup` (of power 1) and
    `get_cosine_with_min_lr_schedule_with_warmup`; those of its warm-up begin at 0 and come one update later.

    Updates past the last that was planned have `min_lr`.
    """
    if update < settings.warmup_steps:
        return settings.lr * (update + 1) / settings.warmup_steps
    if settings.decay is Decay.constant:
        return settings.lr
    gone = min((update - settings.warmup_steps) / max(updates - settings.warmup_steps, 1), 1.0)
    left = 1 - gone if settings.decay is Decay.linear else (1 + math.cos(math.pi * gone)) / 2
    return settings.min_lr + (settings.lr - settings.min_lr) * left
