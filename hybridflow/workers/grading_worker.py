"""Base of workers with graders. Light: no model, no torch; graders are called in a process of their own."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from hybridflow.batch import Batch
from hybridflow.config.schema import CostConfig, RewardConfig
from hybridflow.errors import shown
from hybridflow.tasks.chosen_graders import bind_all, grades_source, options, weights
from hybridflow.tasks.graded_row import Grade, GradedRow
from hybridflow.tasks.grading_process import GradingOrder, GradingProcess, Outcome
from hybridflow.tasks.tokenizer import load_decoder
from hybridflow.workers.row_grades import NOT_ASKED, RowGrades
from hybridflow.workers.worker import Context, Worker

KNOWN = ("messages", "metadata", "source", "finish_reason", "truncated", "sample_id", "environment_failure")
"""Dense columns that become fields of a row of the same name, where rows have them."""


class GraderTraceback(Exception):  # noqa: N818  no error itself: the traceback of one in another process
    """Traceback of a grader, as the cause of the error that tells of it."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


class GradingWorker(Worker):
    """Grades this rank's rows, by the graders of a section of the settings."""

    def __init__(self, context: Context, settings: RewardConfig | CostConfig) -> None:
        super().__init__(context)
        self._settings = settings
        self._section = "cost" if isinstance(settings, CostConfig) else "reward"
        self.graders = bind_all(settings)
        self.decode = load_decoder(context.config.actor.model.path)
        self._decode_raw = load_decoder(context.config.actor.model.path, special_tokens=True)
        order = GradingOrder(
            self.graders,
            [options(settings, grader.name) for grader in self.graders],
            context.config.plugins,
            settings.grader_deadline_s,
            settings.grader_concurrency,
        )
        self._process = GradingProcess(order)

    def close(self) -> None:
        """End the process that grades. It ends with this one anyway."""
        self._process.close()

    def graded(self, rollout: Batch) -> np.ndarray:
        """Return the grade of each response, [R] float32, NaN if it has failed; see `hybridflow.tasks.grades`.

        Raises ValueError for the first that fails, naming grader, response and answer, if none may.
        """
        return self.grade(self.rows(rollout), f"{self._section}/").sums

    def grade(self, rows: Sequence[GradedRow], prefix: str, scores: np.ndarray | None = None) -> RowGrades:
        """Return the grades of rows by all graders, and record them. Raises as `graded`.

        Args:
            prefix: of the names of metrics.
            scores: [R], of the reward model, if it is one of the graders.
        """
        numbers = {grader.name: number for number, grader in enumerate(self.graders)}
        given = {}
        for name in weights(self._settings):
            places = [place for place, row in enumerate(rows) if grades_source(self._settings, name, row.source)]
            if name in numbers:
                own = self._grades(numbers[name], [rows[place] for place in places])
            elif scores is not None:
                own = _scored(scores[places])
            else:  # a reward model, which validation does not ask
                continue
            at_place = dict(zip(places, own, strict=True))
            given[name] = [at_place.get(place, NOT_ASKED) for place in range(len(rows))]
        grades = RowGrades({name: weights(self._settings)[name] for name in given}, list(given.values()))
        grades.record(self.context.metrics, prefix)
        return grades

    def rows(self, rollout: Batch) -> list[GradedRow]:
        """Return rows as graders see them: with prompt and all else that is known if any of them reads that."""
        texts = self.texts(rollout, "response_ids")
        answers = rollout.dense("answer").tolist()
        if not self._settings.grader_sources and not any(grader.reads_rows for grader in self.graders):
            return [GradedRow(text, answer) for text, answer in zip(texts, answers, strict=True)]
        return [self._row(rollout, row, *pair) for row, pair in enumerate(zip(texts, answers, strict=True))]

    def _row(self, rollout: Batch, row: int, response: str, answer: str) -> GradedRow:
        """Return a row with all that its columns say of it."""
        known = {name: rollout.dense(name)[row] for name in KNOWN if name in rollout}
        known |= {name: json.loads(known[name]) for name in ("messages", "metadata") if known.get(name)}
        response_ids = rollout.ragged("response_ids")[row].tolist()
        prompt = self.decode(rollout.ragged("prompt_ids")[row].tolist()) if "prompt_ids" in rollout else ""
        given = {name: value for name, value in known.items() if value is not None}
        if "turn_rewards" in rollout:
            given["turn_rewards"] = rollout.ragged("turn_rewards")[row].tolist()
        raw = self._decode_raw(response_ids)
        return GradedRow(response, answer, prompt=prompt, raw_response=raw, response_tokens=len(response_ids), **given)

    def _grades(self, number: int, rows: Sequence[GradedRow]) -> list[Grade | None]:
        """Return what a grader gives for rows; None where it has failed and may. Raises as `graded`."""
        outcomes = self._process.grade(number, rows, stop=not self._settings.max_failed_share)
        self.context.metrics.max(f"{self._section}/memory_peak_gib", self._process.memory_peak / 2**30)
        if not self._settings.max_failed_share:
            for row, outcome in zip(rows, outcomes, strict=True):
                if outcome is not None and outcome.grade is None:
                    self._refuse(self.graders[number].name, row, outcome)
        return [None if outcome is None else outcome.grade for outcome in outcomes]

    def _refuse(self, grader: str, row: GradedRow, outcome: Outcome) -> NoReturn:
        """Raise ValueError with what went wrong at a row."""
        of = f"the response {shown(row.response)} (answer {shown(row.answer)})"
        if outcome.kind == "no number":
            raise ValueError(f"grader {grader!r} gave {of} a grade that is no finite number: {outcome.problem}")
        if outcome.kind == "unsound":
            raise ValueError(f"grader {grader!r} gave {of} a grade that cannot be used: {outcome.problem}")
        problem = outcome.problem
        if outcome.kind == "late":
            key = f"{self._section}.grader_deadline_s"
            problem = f"it gave no grade within {self._settings.grader_deadline_s:g} s ({key})"
        elif outcome.kind == "died":
            problem = f"its process died: {outcome.problem}"
        cause = GraderTraceback(outcome.trace) if outcome.trace else None
        raise ValueError(f"grader {grader!r} failed on {of}: {problem}") from cause

    def texts(self, rollout: Batch, column: str) -> list[str]:
        """Decode the rows of a column of token ids."""
        return [self.decode(row.tolist()) for row in rollout.ragged(column)]


def _scored(scores: np.ndarray) -> list[Grade | None]:
    """Return a model's scores as grades; one that is not finite has failed."""
    return [Grade(float(score)) if math.isfinite(score) else None for score in scores]
