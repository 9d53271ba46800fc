"""Base of workers with a grader. Light: no model, no torch."""

from __future__ import annotations

import asyncio
import math

import numpy as np

from hybridflow.batch import Batch
from hybridflow.config.schema import CostConfig, RewardConfig
from hybridflow.errors import shown
from hybridflow.tasks.chosen_graders import options
from hybridflow.tasks.graded_row import Grade, GradedRow
from hybridflow.tasks.grader_registry import bind
from hybridflow.tasks.grades import number
from hybridflow.tasks.sound_grades import grades_of
from hybridflow.tasks.tokenizer import load_decoder
from hybridflow.workers.worker import Context, Worker


class GradingWorker(Worker):
    """Grades this rank's rows, by the grader of a section of the settings."""

    def __init__(self, context: Context, settings: RewardConfig | CostConfig) -> None:
        super().__init__(context)
        self._settings = settings
        self.grader = bind(settings.grader, options(settings, settings.grader))
        self.decode = load_decoder(context.config.actor.model.path)

    def graded(self, rollout: Batch) -> np.ndarray:
        """Return the grade of each response, [R] float32, NaN if it has failed; see `hybridflow.tasks.grades`.

        Raises ValueError for the first that fails, naming grader, response and answer, if none may.
        """
        texts = self.texts(rollout, "response_ids")
        pairs = zip(texts, rollout.dense("answer"), strict=True)
        return np.array([self._grade(GradedRow(text, answer)) for text, answer in pairs], dtype=np.float32)

    def _grade(self, row: GradedRow) -> float:
        grader = self.grader.name
        of = f"the response {shown(row.response)} (answer {shown(row.answer)})"
        try:
            (grade,) = asyncio.run(grades_of(self.grader, [row]))
        except (Exception, SystemExit) as error:  # `sys.exit` in a grader ends no run either
            if self._settings.max_failed_share:
                return math.nan
            raise ValueError(f"grader {grader!r} failed on {of}: {type(error).__name__}: {error}") from error
        try:
            return number(grade.value if isinstance(grade, Grade) else grade)
        except ValueError as error:
            if self._settings.max_failed_share:
                return math.nan
            raise ValueError(f"grader {grader!r} gave {of} a grade that is no finite number: {error}") from None

    def texts(self, rollout: Batch, column: str) -> list[str]:
        """Decode the rows of a column of token ids."""
        return [self.decode(row.tolist()) for row in rollout.ragged(column)]
