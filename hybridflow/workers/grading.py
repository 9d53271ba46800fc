"""What workers with a grader share. Light: no model, no torch."""

from __future__ import annotations

import numpy as np

from hybridflow.batch import Batch
from hybridflow.tasks import graders
from hybridflow.tasks.tokenizer import load_decoder
from hybridflow.workers.base import Context, Worker


class GradingWorker(Worker):
    """Grades this rank's rows. An exception in a grader stops the run: it is never a grade."""

    def __init__(self, context: Context, grader: str) -> None:
        super().__init__(context)
        self.grader = graders.get(grader)
        self.decode = load_decoder(context.config.actor.model.path)

    def graded(self, rollout: Batch, metric: str) -> np.ndarray:
        """[R] float32: the grade of each response; reports their mean."""
        texts = self.texts(rollout, "response_ids")
        grades = [self.grader(text, answer) for text, answer in zip(texts, rollout.dense("answer"), strict=True)]
        found = np.array(grades, dtype=np.float32)
        self.context.metrics.mean(metric, found.sum(), len(found))
        return found

    def texts(self, rollout: Batch, column: str) -> list[str]:
        """The rows of a column of token ids as text."""
        return [self.decode(row.tolist()) for row in rollout.ragged(column)]
