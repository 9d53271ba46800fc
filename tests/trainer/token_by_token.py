"""A plugin: paced schedules look at what has finished after each token, so what is a token longer finishes later.

It changes the process that imports it.
"""

from __future__ import annotations

from hybridflow.trainer.schedules import live_rollouts

live_rollouts.ENGINE_STEPS = 1
