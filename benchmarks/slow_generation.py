"""Plugin that makes generation as slow as a learner, so that rows are under way when weights come.

The tiny model has finished its few tokens long before that. Here a call is for one token, and takes a while.
"""

from __future__ import annotations

import time
from typing import Any

from hybridflow.batch import Batch
from hybridflow.trainer.schedules import live_rollouts
from hybridflow.workers.rollout_loop import RolloutLoop

TOKEN_S = 0.25

_go_on = RolloutLoop.go_on


def _slowly(self: RolloutLoop, engine_steps: int) -> Batch:
    began = time.monotonic()
    finished = _go_on(self, engine_steps)
    time.sleep(max(0.0, began + TOKEN_S - time.monotonic()))
    return finished


options: Any = live_rollouts
options.ENGINE_STEPS = 1
RolloutLoop.go_on = _slowly  # type: ignore[method-assign]
