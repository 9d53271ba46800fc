"""A plugin: sync, whose steps are given prompts in the order that a file says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hybridflow.algorithms import StepContext
from hybridflow.algorithms.schedule import schedules
from hybridflow.batch import BatchRef
from hybridflow.batch.joining import concat
from hybridflow.batch.lineage import PLACE
from hybridflow.dispatch.random_streams import STREAM, stream_ids
from hybridflow.trainer.schedules.sync import SyncSchedule

NAME = "sync_in_order"
ORDER = "HYBRIDFLOW_TEST_ORDER"  # names the file: of each step the ids of its prompts
DRAWN = ".drawn"  # is added to the name of another, which has the ids of all prompts in the order of the run


@schedules.register(NAME)
class SyncInOrder(SyncSchedule):
    """Generates a step's rows in one call, as sync does, each with the random stream that its prompt was drawn with."""

    _in_step = False

    def take_step(self, context: StepContext) -> BatchRef:
        file = os.environ[ORDER]
        steps = json.loads(Path(file).read_text())
        actor: Any = self.algorithm.actor
        actor.row_source = self
        drawn = concat([context.draw(number) for number in range(2 * len(steps))])
        ids = drawn.select_columns(["sample_id"]).get().dense("sample_id")
        Path(file + DRAWN).write_text(json.dumps(ids.tolist()))
        wanted = np.isin(ids, steps[context.step_index])
        self.steps.begin_step(context.step_index)
        self.algorithm.begin_step(context)
        self.sync_weights()
        self._in_step = True
        try:
            return self.algorithm.step(drawn.select(np.flatnonzero(wanted)))
        finally:
            self._in_step = False

    def sampled(self, prompts: BatchRef, options: Mapping[str, Any]) -> BatchRef | None:
        if not self._in_step:
            return None
        draw = prompts.lineage[PLACE] // self.algorithm.config.prompts_per_step
        streams = np.zeros(len(prompts), dtype=np.int64)
        for number in np.unique(draw):
            streams[draw == number] = stream_ids(prompts, number, 0)[draw == number]
        actor: Any = self.algorithm.actor
        rows: BatchRef = actor.rollout_group.generate_sequences(prompts.for_call(**{STREAM: streams}), **options)
        return rows

    def rest(self) -> None:
        """Nothing is under way between two calls."""
