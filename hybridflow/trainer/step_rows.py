"""The rows of a task that a step is given."""

from __future__ import annotations

import numpy as np

from hybridflow.algorithms import Algorithm
from hybridflow.batch import Batch, BatchRef
from hybridflow.controller import put
from hybridflow.tasks import Prompts, Task
from hybridflow.trainer.validation import with_preferences


def drawn(algorithm: Algorithm, prompts: Prompts, number: int) -> BatchRef:
    """Return the prompts of draw 0, 1, 2, …, which know their places in the order of the run."""
    rows = rows_for(algorithm, prompts.task, prompts.split, prompts.at(number))
    return put(rows).placed(prompts.places(number))


def split_of(algorithm: type[Algorithm]) -> str:
    """Return the split that an algorithm learns from."""
    return "warmup" if algorithm.supervised else "train"


def rows_for(algorithm: Algorithm | type[Algorithm], task: Task, split: str, numbers: np.ndarray) -> Batch:
    """Return what the algorithm is given of these rows."""
    if algorithm.preferences:
        return with_preferences(task).preferences(split, numbers)
    return task.supervised(split, numbers) if algorithm.supervised else task.rows(split, numbers)
