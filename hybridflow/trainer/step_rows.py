"""The rows of a task that a step is given."""

from __future__ import annotations

from hybridflow.algorithms import Algorithm
from hybridflow.batch import BatchRef
from hybridflow.controller import put
from hybridflow.tasks import Prompts
from hybridflow.trainer.chosen_rows import rows_for


def drawn(algorithm: Algorithm, prompts: Prompts, number: int) -> BatchRef:
    """Return the prompts of draw 0, 1, 2, …, which know their places in the order of the run."""
    rows = rows_for(algorithm, prompts.task, prompts.split, prompts.at(number))
    return put(rows).placed(prompts.places(number))
