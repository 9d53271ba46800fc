"""Validation: on questions that no training ever sees, greedy answers or, of a reward model, its preferences."""

from __future__ import annotations

import math

import numpy as np

from hybridflow.algorithms import Algorithm
from hybridflow.batch import Batch
from hybridflow.config.schema import Config
from hybridflow.controller import put
from hybridflow.errors import HybridFlowError
from hybridflow.tasks import PreferenceTask, Task
from hybridflow.tasks.grades import too_many_failed
from hybridflow.trainer.build import Running


def validate(config: Config, running: Running, task: Task) -> dict[str, float]:
    """Measure what the first `trainer.validation_prompts` held-out rows say.

    Of prompts, `accuracy` is the share of answers that are right, which a grade of `reward.right_grade` or more says,
    and `mean_grade` the mean of the grades. The grades are the grader's, also where a model gives the rewards; those
    that failed are in neither. Of pairs, `accuracy` is the share whose chosen side wins; there is the `loss` too, and
    what else a loss of pairs says of whole pairs: `sign_accuracy`.

    Raises RoleError if a role fails, HybridFlowError if more grades fail than may.
    """
    running.supervisor.collect_metrics()  # of calls before it: they are none of the validation's
    held_out = put(held_out_rows(type(running.algorithm), task, config.trainer.validation_prompts))
    if judged(running.algorithm) == "pairs":
        running.groups["reward_model"].compare(held_out)
        metrics = running.supervisor.collect_metrics()
        names = {name: f"reward_model/{name}" for name in ("accuracy", "loss", "sign_accuracy")}
        return {name: metrics[metric] for name, metric in names.items() if metric in metrics}
    running.groups["actor"].sync_weights()
    prompts = held_out | running.groups["actor"].generate_sequences(held_out, temperature=0.0)
    rewards = running.groups["grader"].compute_reward(prompts)
    problem = too_many_failed(config, running.supervisor.collect_metrics())
    if problem is not None:
        raise HybridFlowError(f"validation: {problem}")
    return of_grades(rewards.get().dense("rewards"), config.reward.right_grade)


def of_grades(grades: np.ndarray, right: float) -> dict[str, float]:
    """Summarize [R] float32 grades, NaN standing for one that failed; `right`: the smallest grade that is right."""
    known = grades[np.isfinite(grades)]
    failed = float(len(grades) - len(known))
    if not len(known):
        return {"accuracy": math.nan, "mean_grade": math.nan, "failed_grades": failed}
    share = float((known >= np.float32(right)).mean())
    mean = float(known.mean(dtype=np.float64))
    return {"accuracy": share, "mean_grade": mean, "failed_grades": failed}


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
