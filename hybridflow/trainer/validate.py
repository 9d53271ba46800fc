"""Validation: on questions that no training ever sees, greedy answers or, of a reward model, its preferences."""

from __future__ import annotations

import numpy as np

from hybridflow.algorithms import Algorithm
from hybridflow.batch import Batch
from hybridflow.controller import put
from hybridflow.tasks import PreferenceTask, Task
from hybridflow.trainer.build import Running


def validate(running: Running, task: Task, rows: int) -> dict[str, float]:
    """`accuracy` on the first `rows` held-out rows: the mean grade, or the share of pairs whose chosen side wins.

    The grade is the grader's, also where a model gives the rewards. Of pairs there is the `loss` too, and what else a
    loss of pairs says of whole pairs: `sign_accuracy`.
    Raises RoleError if a role fails.
    """
    running.supervisor.drain()
    held_out = put(held_out_rows(type(running.algorithm), task, rows))
    if judged(running.algorithm) == "pairs":
        running.groups["reward_model"].compare(held_out)
        found = running.supervisor.drain()
        names = {name: f"reward_model/{name}" for name in ("accuracy", "loss", "sign_accuracy")}
        return {name: found[metric] for name, metric in names.items() if metric in found}
    prompts = held_out | running.groups["actor"].generate_sequences(held_out, temperature=0.0)
    running.groups["grader"].compute_reward(prompts)
    return {"accuracy": running.supervisor.drain()["reward/mean"]}


def held_out_rows(algorithm: type[Algorithm], task: Task, rows: int) -> Batch:
    """The first `rows` held-out rows, as the validation of an algorithm takes them."""
    numbers = np.arange(min(rows, task.size("held_out")))
    if judged(algorithm) == "pairs":
        return with_preferences(task).preferences("held_out", numbers)
    return task.rows("held_out", numbers)


def judged(algorithm: Algorithm | type[Algorithm]) -> str:
    """What accuracy is of: a reward model's `pairs`, or a policy's answers to `prompts`."""
    return "pairs" if algorithm.learner == "reward_model" else "prompts"


def with_preferences(task: Task) -> PreferenceTask:
    """The task of an algorithm that learns from preferences; that it has them was checked with the configuration."""
    assert isinstance(task, PreferenceTask), f"{type(task).__name__} is no PreferenceTask"
    return task
