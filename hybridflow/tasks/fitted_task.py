"""The rows of a task as a run can take them: tokens that its models have, and lengths that fit.

Rows that are too long are refused, left out or cut, as `task.too_long` says; rows that cannot be used are refused or
left out, as `task.malformed` says. What is left out does not depend on where a run is: all of a split is read once, at
the start, and rows are numbered without those that are left out. So the order of training stays a function of seed and
draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from hybridflow.batch import Batch, Ragged
from hybridflow.config.schema import CurriculumConfig, Malformed, TooLong
from hybridflow.errors import DataError, shown
from hybridflow.tasks.chat_hint import hints
from hybridflow.tasks.curriculum import read_curriculum
from hybridflow.tasks.preference_task import PreferenceTask
from hybridflow.tasks.row_limits import Limits, check_ids, truncated
from hybridflow.tasks.row_order import Curriculum, Portion
from hybridflow.tasks.split_survey import PORTION, Survey, survey
from hybridflow.tasks.task import Example, Task, named_row

__all__ = ["FittedTask", "Limits"]

LOOKED_AT = PORTION  # rows of a split that are read before the start even if none is to be left out


class FittedTask(PreferenceTask):
    """Task restricted to the rows that a run can take; what it gives is otherwise the wrapped task's own.

    Args:
        ways: by split that the run uses, the method that gives its rows: `rows`, `supervised` or `preferences`.
        sort: what training sorts its rows by, if `by` names anything.

    All methods that give rows raise DataError naming a row that cannot be used.
    """

    def __init__(
        self,
        task: Task,
        limits: Limits,
        too_long: TooLong,
        ways: Mapping[str, str],
        malformed: Malformed = Malformed.error,
        sort: CurriculumConfig | None = None,
    ) -> None:
        self.task = task
        self.limits = limits
        self.too_long = too_long
        self.malformed = malformed
        self.sort = sort
        self.ways = ways
        self.grader = task.grader
        self.answer_checks = task.answer_checks
        self.metadata_checks = task.metadata_checks
        self.tokenizer = task.tokenizer
        self.template_options = task.template_options
        self.chat_form = task.chat_form
        self.source_names = task.source_names
        self.question_hashes = task.question_hashes
        self.fingerprint = task.fingerprint
        self._surveys: dict[str, Survey] = {}
        self._left: dict[str, np.ndarray] = {}
        self._curricula: dict[str, Curriculum] = {}

    def size(self, split: str) -> int:
        """Count the rows without those that are left out. Raises DataError if a split that the run uses has none."""
        rows = len(self._rows_left(split)) if self._drops(split) else self._size(split)
        if not rows and split in self.ways:
            use = "accuracy is measured on it" if split == "held_out" else "there is nothing to learn from"
            raise DataError(
                f"split {split!r} is empty, and {use}: {self._why_empty(split)}; change the task's size({split!r}) or "
                "options"
            )
        return rows

    def example(self, split: str, index: int) -> Example:
        return self.task.example(split, int(self._numbers(split, [index])[0]))

    def rejected(self, split: str, index: int) -> str:
        return self._pairs.rejected(split, int(self._numbers(split, [index])[0]))

    def rows(self, split: str, indices: ArrayLike) -> Batch:
        return self._fitted("rows", split, self._numbers(split, indices))

    def supervised(self, split: str, indices: ArrayLike) -> Batch:
        return self._fitted("supervised", split, self._numbers(split, indices))

    def preferences(self, split: str, indices: ArrayLike) -> Batch:
        return self._fitted("preferences", split, self._numbers(split, indices))

    def portions(self, split: str) -> Sequence[Portion]:
        """Return the wrapped task's portions, less the rows that are left out.

        Raises DataError if none of a portion's is left.
        """
        given = self.task.portions(split)
        if not self._drops(split):
            return given
        left = self._rows_left(split)
        kept = [replace(portion, rows=np.flatnonzero(np.isin(left, portion.rows))) for portion in given]
        for portion in kept:
            if not len(portion.rows):
                raise DataError(
                    f"split {split!r}: no row of the source {portion.name!r} is left: each is too long for this run "
                    f"({self.limits.said}) or malformed; leave the source out of the mixture"
                )
        return kept

    def training_curriculum(self, split: str) -> Curriculum | None:
        """Return by what training sorts a split's rows. Reads each of them, once; raises DataError for one without."""
        if self.sort is None or not self.sort.by:
            return None
        if split not in self._curricula:
            self._curricula[split] = read_curriculum(self, split, self.sort)
        return self._curricula[split]

    def look(self) -> list[str]:
        """Read what can be known before the start; return a line for each split with rows that are left out or
        truncated.

        Raises DataError for a row that cannot be used: any row if some may be too long, else one of the first.
        """
        lines = list(self.task.notes())
        if self.ways:
            lines += hints(self.task, next(iter(self.ways)))
        for split, way in self.ways.items():
            size = self.size(split)
            if not self._surveyed:
                self._fitted(way, split, self._first(split, size))
                continue
            surveyed = self._survey(split)
            lines += self._told(split, way, surveyed)
            if self.too_long is TooLong.error:
                self._fitted(way, split, np.flatnonzero(surveyed.long)[:1])
        return lines

    def _told(self, split: str, way: str, surveyed: Survey) -> Iterator[str]:
        """Yield in a line each which rows of a split are skipped, and how many are left out or truncated."""
        rows = len(surveyed.long)
        for reason, count, first in surveyed.reasons():
            yield f"task.malformed: {count} of the {rows} rows of {split} skipped: {reason}; the first: {first}"
        long = int(surveyed.long.sum())
        if long and self.too_long is not TooLong.error:
            done = "cut on the left" if self.too_long is TooLong.truncate_left else "left out"
            kept = f" less {self.limits.response} for rollout.max_response_tokens" if way == "rows" else ""
            fits = f"{self.limits.said}{kept}"
            yield f"task.too_long: {long} of the {rows} rows of {split} {done}: longer than {fits}"

    def _first(self, split: str, size: int) -> np.ndarray:
        """Return the numbers of the rows that are looked at before the start: the first, and one known to be bad."""
        return np.concatenate([np.asarray(self.task.suspects(split)[:1], dtype=int), np.arange(min(size, LOOKED_AT))])

    def _why_empty(self, split: str) -> str:
        if not self._size(split):
            return "it has no rows"
        malformed = self._survey(split).malformed
        if not malformed:
            return "every row is too long for this run"
        first = next(iter(malformed.values()))
        others = "" if len(malformed) == self._size(split) else ", and every other is too long"
        return f"{len(malformed)} of {self._size(split)} rows are malformed{others}; the first: {first}"

    def _size(self, split: str) -> int:
        """Return the wrapped task's own size. Raises DataError if it is no number of rows."""
        rows = self.task.size(split)
        if not isinstance(rows, int | np.integer) or rows < 0:
            raise DataError(f"size({split!r}) gave {shown(rows)}; a whole number of rows was expected")
        return int(rows)

    @property
    def _pairs(self) -> PreferenceTask:
        assert isinstance(self.task, PreferenceTask), f"{type(self.task).__name__} is no PreferenceTask"
        return self.task

    @cached_property
    def _opening(self) -> list[int]:
        return self.task.encoder.opening

    @property
    def _surveyed(self) -> bool:
        """Tell whether every row is read before the start."""
        return self.too_long is not TooLong.error or self.malformed is Malformed.skip

    def _drops(self, split: str) -> bool:
        return (self.too_long is TooLong.drop or self.malformed is Malformed.skip) and split in self.ways

    def _numbers(self, split: str, indices: ArrayLike) -> np.ndarray:
        """Translate row numbers into the wrapped task's own."""
        numbers = np.asarray(indices, dtype=np.int64)
        if not self._drops(split):
            return numbers
        left = self._rows_left(split)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(left):
            raise IndexError(f"a row outside of split {split!r}, of which {len(left)} rows are left")
        return left[numbers]

    def _rows_left(self, split: str) -> np.ndarray:
        if split not in self._left:
            self._left[split] = self._survey(split).left(drop=self.too_long is TooLong.drop)
        return self._left[split]

    def _survey(self, split: str) -> Survey:
        if split not in self._surveys:
            way = self.ways[split]
            self._surveys[split] = survey(
                lambda numbers: self._sound(way, split, numbers),
                self._size(split),
                lambda batch: batch.lengths("prompt_ids") > self.limits.room(batch),
                skip=self.malformed is Malformed.skip,
            )
        return self._surveys[split]

    def _sound(self, way: str, split: str, numbers: np.ndarray) -> Batch:
        """Return rows of the task after checking that their ids are tokens of all models."""
        source = self._pairs if way == "preferences" else self.task
        batch: Batch = getattr(source, way)(split, numbers)
        if len(batch) != len(numbers):
            raise DataError(
                f"split {split!r}: {type(self.task).__name__}.{way} gave {len(batch)} rows for {len(numbers)} row "
                "numbers; one for each, in their order, was expected: leave rows out by the task's size"
            )
        if type(self.task).rows is not Task.rows and way == "rows" and "answer" in batch:
            sources = batch.dense("source") if "source" in batch else [""] * len(batch)
            for number, answer, source in zip(numbers.tolist(), batch.dense("answer"), sources, strict=True):
                with named_row(self.task, split, number):
                    self.task.check_answer(answer, source)
        giver = f"{type(self.task).__name__}.{way}"
        check_ids(
            batch,
            split,
            lambda row: self.task.row_place(split, int(numbers[row])),
            giver,
            self.limits.vocabularies,
            self.tokenizer,
        )
        return batch

    def _fitted(self, way: str, split: str, numbers: np.ndarray) -> Batch:
        batch = self._sound(way, split, numbers)
        if not len(batch):
            return batch
        prompts = batch.ragged("prompt_ids")
        room = self.limits.room(batch)
        long = np.flatnonzero(prompts.lengths > room)
        refused = long[room[long] < 1] if self.too_long is TooLong.truncate_left else long
        if len(refused):
            message = self.limits.too_long_message(batch, int(refused[0]))
            raise DataError(f"{self.task.row_place(split, int(numbers[refused[0]]))}: {message}")
        if not len(long):
            return batch
        opening = self._opening
        cut = [truncated(ids, int(max_tokens), opening) for ids, max_tokens in zip(prompts, room, strict=True)]
        return Batch(**{**dict(batch.items()), "prompt_ids": Ragged.of(cut, np.int64)})
