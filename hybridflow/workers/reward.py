"""The reward: a grader over response texts. Light: no model, no torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hybridflow.batch import Batch
from hybridflow.batch.columns import Column
from hybridflow.config.schema import FullDisk
from hybridflow.observe.disk_errors import DiskError, writing
from hybridflow.observe.line_file import appending
from hybridflow.observe.plain_json import as_json
from hybridflow.roles import RewardRole
from hybridflow.tasks.chosen_graders import accuracy_grader, asked, grades_source, weights
from hybridflow.workers.grading_worker import GradingWorker
from hybridflow.workers.rollout_entries import BY_TOKEN, other_entries, our_entries, token_entries
from hybridflow.workers.worker import Context, workers

log = logging.getLogger(__name__)

UNWRITTEN = "rollout/unwritten_rows"  # that the disk had no room for, where the run goes on all the same


@workers.register("reward")
class RewardWorker(RewardRole[Batch], GradingWorker):
    """Grades this rank's rows, and writes them out."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.reward)

    def compute_reward(self, rollout: Batch) -> Batch:
        return self.rewards(rollout)

    def rewards(self, rollout: Batch, scores: np.ndarray | None = None) -> Batch:
        """Return the columns of `compute_reward`. `scores` as those of `grade`."""
        rows = self.rows(rollout)
        grades = self.grade(rows, "reward/", scores)
        columns: dict[str, Column] = {"rewards": grades.sums}
        if self.context.config.reward.graders:
            columns["grades"] = grades.values
        if any(grader.token_rewards for grader in self.graders):
            tokens = grades.token_rewards(rows, rollout.ragged("response_ids"), self.decode)
            self.context.metrics.spread("reward/token_rewards/", [float(row.sum()) for row in tokens])
            columns["token_rewards"] = tokens
        return Batch(**columns)

    def compute_answer_key(self, answers: Batch) -> Batch:
        key_of = {grader.name: grader.answer_key for grader in self.graders}
        sources = answers.dense("source") if "source" in answers else [""] * len(answers)
        graded = np.isfinite(answers.dense("rewards")) if "rewards" in answers else np.ones(len(answers), dtype=bool)
        keys = []
        for source, sound, text in zip(sources, graded, self.texts(answers, "response_ids"), strict=True):
            judge = accuracy_grader(self.context.config.reward, source)
            # What a grader hung or died at is not given to it here, where nobody would end it.
            keys.append(str(key_of[judge](text)) if sound else text)
        return Batch(answer_key=np.array(keys, dtype=object))

    def compute_baseline(self, greedy: Batch) -> Batch:
        return self.baseline(greedy)

    def baseline(self, greedy: Batch, scores: np.ndarray | None = None) -> Batch:
        """Return the columns of `compute_baseline`. `scores` as those of `grade`."""
        lengths = greedy.ragged("response_ids").lengths
        grades = self.grade(self.rows(greedy), "reward/baseline_", scores)
        return Batch(baseline_rewards=grades.sums, baseline_lengths=lengths)

    def log_rollouts(self, rollout: Batch, *, step: int, folder: str) -> None:
        path = Path(folder)
        file = path / f"rank{self.context.rank}.jsonl"
        try:
            with writing(path):
                path.mkdir(parents=True, exist_ok=True)
            with appending(file) as stream:
                for line in self._lines(rollout, step):
                    # Half of a surrogate pair, which UTF-8 does not have, is written as JSON's own escape.
                    stream.write(f"{as_json(line, ensure_ascii=False)}\n".encode(errors="backslashreplace"))
        except DiskError as error:
            if self.context.config.trainer.full_disk is FullDisk.stop:
                raise
            log.info("step %d: rows are not written: %s", step, error)
            self.context.metrics.total(UNWRITTEN, len(rollout))

    def _lines(self, rollout: Batch, step: int) -> Iterator[dict[str, Any]]:
        """Yield what is written of each row."""
        prompts = self.texts(rollout, "prompt_ids")
        responses = self.texts(rollout, "response_ids")
        with_tokens = self.context.config.trainer.log_token_rows if "advantages" in rollout else 0
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            line: dict[str, Any] = {"step": step, "prompt": prompt, "response": response}
            if "rejected_ids" in rollout:
                line["rejected"] = self.decode(rollout.ragged("rejected_ids")[row].tolist())
            line |= our_entries(rollout, row)
            line |= self._own_entries(rollout, row)
            if row < with_tokens:
                line[BY_TOKEN] = token_entries(rollout, row, self._decode_raw)
            line |= {name: entry for name, entry in other_entries(rollout, row).items() if name not in line}
            yield line

    def _own_entries(self, rollout: Batch, row: int) -> dict[str, Any]:
        """Return what each of `reward.graders` gave for a row, and its values of tokens.

        A flow may have had columns of these names before there were graders that give them: they are written as they
        are.
        """
        entries: dict[str, Any] = {name: rollout[name][row] for name in ("grades", "token_rewards") if name in rollout}
        settings = self.context.config.reward
        if "grades" in entries and settings.graders:
            names = list(weights(settings))
            if len(entries["grades"]) < len(names):  # of a validation, which does not ask the reward model
                names = asked(settings)
            given = zip(names, entries["grades"].tolist(), strict=True)
            source = str(rollout.dense("source")[row]) if "source" in rollout else ""
            entries["grades"] = {name: grade for name, grade in given if grades_source(settings, name, source)}
        return entries
