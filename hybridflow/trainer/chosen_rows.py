"""Rows of a task that a run takes: those of a step, and those that it validates on. Nothing is put into a store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hybridflow.algorithms import Algorithm
from hybridflow.batch import Batch
from hybridflow.tasks import PreferenceTask, Task


@dataclass(frozen=True)
class HeldOut:
    """Questions to validate on.

    Attributes:
        name: one of `trainer.validation_sets`; empty for those of the run's own task.
    """

    task: Task
    name: str = ""


def split_of(algorithm: type[Algorithm]) -> str:
    """Return the split that an algorithm learns from."""
    return "warmup" if algorithm.supervised else "train"


def rows_for(algorithm: Algorithm | type[Algorithm], task: Task, split: str, numbers: np.ndarray) -> Batch:
    """Return what the algorithm is given of these rows."""
    if algorithm.preferences:
        return with_preferences(task).preferences(split, numbers)
    return task.supervised(split, numbers) if algorithm.supervised else task.rows(split, numbers)


def held_out_rows(algorithm: type[Algorithm], task: Task, rows: int) -> Batch:
    """Return the first `rows` held-out rows, as the validation of an algorithm takes them."""
    numbers = np.arange(min(rows, task.size("held_out")))
    if judged(algorithm) == "pairs":
        return with_preferences(task).preferences("held_out", numbers)
    return task.rows("held_out", numbers)


def judged(algorithm: Algorithm | type[Algorithm]) -> str:
    """Name what accuracy is of: a reward model's `pairs`, or a policy's answers to `prompts`."""
    return "pairs" if algorithm.learner == "reward_model" else "prompts"


def with_preferences(task: Task) -> PreferenceTask:
    """Return the task of an algorithm that learns from preferences; that it has them was checked with the
    configuration.
    """
    assert isinstance(task, PreferenceTask), f"{type(task).__name__} is no PreferenceTask"
    return task
