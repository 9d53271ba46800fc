"""Validation: on questions that no training ever sees, answers or, of a reward model, its preferences."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from hybridflow.batch import Batch, BatchRef
from hybridflow.config.schema import Config
from hybridflow.controller import put
from hybridflow.errors import HybridFlowError
from hybridflow.tasks.chosen_graders import accuracy_grader, asked
from hybridflow.tasks.grades import too_many_failed
from hybridflow.trainer.answer_statistics import Answers, statistics
from hybridflow.trainer.build import Running
from hybridflow.trainer.chosen_rows import HeldOut, held_out_rows, judged
from hybridflow.trainer.journal_folder import REUSED
from hybridflow.workers.reward import UNWRITTEN


def validate(config: Config, running: Running, sets: Sequence[HeldOut], *, step: int, folder: Path) -> dict[str, float]:
    """Measure what the first `trainer.validation_prompts` held-out rows of each set say.

    Of prompts, these are the `statistics` of `trainer.validation_samples` answers to each; those of a named set have
    its name before theirs. The grades are the grader's, also where a model gives the rewards. Of pairs, `accuracy` is
    the share whose chosen side wins; there is the `loss` too, and what else a loss of pairs says of whole pairs:
    `sign_accuracy`.

    Args:
        step: how many have been taken.
        folder: `validation` of the run folder, into which graded answers are written.

    Raises RoleError if a role fails, HybridFlowError if more grades fail than may.
    """
    running.supervisor.collect_metrics()  # of calls before it: they are none of the validation's
    measured: dict[str, float] = {}
    for one in sets:
        if judged(running.algorithm) == "pairs":
            found = _of_pairs(config, running, one)
        else:
            answers = graded_answers(config, running, one, step=step, folder=folder / one.name)
            found = statistics(answers)
            found |= {"unwritten_rows": answers.unwritten} if answers.unwritten else {}
            found |= {"reused_rows": answers.reused} if answers.reused else {}
        measured |= {f"{one.name}/{name}" if one.name else name: value for name, value in found.items()}
    return measured


def graded_answers(config: Config, running: Running, held_out: HeldOut, *, step: int, folder: Path) -> Answers:
    """Answer the first held-out rows, write the answers to `folder/rank<i>.jsonl`, and return their grades.

    Raises as `validate`.
    """
    settings = config.trainer
    rows = held_out_rows(type(running.algorithm), held_out.task, settings.validation_prompts)
    sources = [str(source) for source in rows.dense("source")] if "source" in rows else []
    if settings.validation_samples > 1 or settings.validation_temperature:
        rows = _copies(rows, settings.validation_samples, held_out.name)
    running.groups["actor"].sync_weights()
    questions = put(rows)
    answers = questions | running.groups["actor"].generate_sequences(
        questions, temperature=settings.validation_temperature
    )
    grader = running.groups["grader"]
    answers |= grader.compute_reward(answers)
    keys = grader.compute_answer_key(answers).get().dense("answer_key") if settings.validation_samples > 1 else ()
    if settings.log_answers:
        grader.log_rollouts(answers, step=step, folder=str(folder))
    metrics = running.supervisor.collect_metrics()
    problem = too_many_failed(config, metrics)
    if problem is not None:
        raise HybridFlowError(f"validation: {problem}")
    grades = _accuracy_grades(config, answers)
    right = config.reward.right_grade
    counts = int(metrics.get(UNWRITTEN, 0)), int(metrics.get(REUSED, 0))
    return Answers(grades, settings.validation_samples, right, list(keys), sources, *counts)


def _accuracy_grades(config: Config, answers: BatchRef) -> np.ndarray:
    """Return the grades [R] of the grader that says what is right; NaN for rows of which any grade has failed."""
    columns = answers.select_columns(["rewards", "grades", "source"]).get()
    rewards = columns.dense("rewards")
    if "grades" not in columns:
        return rewards
    names = asked(config.reward)
    sources = columns.dense("source") if "source" in columns else [""] * len(rewards)
    judges = [names.index(accuracy_grader(config.reward, str(source))) for source in sources]
    grades = columns.dense("grades")[np.arange(len(rewards)), judges]
    return np.where(np.isfinite(rewards), grades, np.float32(np.nan))


def _copies(rows: Batch, samples: int, name: str) -> Batch:
    """Return each row `samples` times, with random streams that are the same at every validation of the set.

    So two validations differ by what was learned between them and not by their draws.
    """
    numbers = np.repeat(np.arange(len(rows)), samples)
    digest = blake2b(name.encode(), digest_size=4).digest()
    first = int.from_bytes(digest, "little") >> 1 << 31
    return rows.select(numbers) | Batch(stream_id=first + np.arange(len(numbers), dtype=np.int64))


def _of_pairs(config: Config, running: Running, held_out: HeldOut) -> dict[str, float]:
    rows = held_out_rows(type(running.algorithm), held_out.task, config.trainer.validation_prompts)
    running.groups["reward_model"].compare(put(rows))
    metrics = running.supervisor.collect_metrics()
    names = {name: f"reward_model/{name}" for name in ("accuracy", "loss", "sign_accuracy")}
    return {name: metrics[metric] for name, metric in names.items() if metric in metrics}
