"""Validation: greedy answers to questions that no training ever sees."""

from __future__ import annotations

import numpy as np

from hybridflow.controller import put
from hybridflow.tasks import Task
from hybridflow.trainer.build import Running


def validate(running: Running, task: Task, rows: int) -> float:
    """Accuracy (mean grade) on the first `rows` held-out prompts. Raises RoleError if a role fails."""
    running.supervisor.drain()
    prompts = put(task.rows("held_out", np.arange(min(rows, task.size("held_out")))))
    prompts |= running.groups["actor"].generate_sequences(prompts, greedy=True)
    running.groups["reward"].compute_reward(prompts)
    return running.supervisor.drain()["reward/mean"]
