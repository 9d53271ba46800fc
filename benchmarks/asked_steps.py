"""Steps of a run that are taken one at a time, when they are asked for, as the trainer takes them."""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple

from hybridflow.algorithms.schedule import schedules
from hybridflow.batch import BatchRef
from hybridflow.config.schema import Config
from hybridflow.tasks import Prompts
from hybridflow.trainer.build import Running
from hybridflow.trainer.progress import Progress
from hybridflow.trainer.prompt_draws import PromptDraws
from hybridflow.trainer.step_rows import drawn


class AskedStep(NamedTuple):
    """A step that was taken: its rows, what it measured, and its seconds."""

    rollout: BatchRef
    metrics: dict[str, float]
    seconds: float


class AskedSteps:
    """Takes the steps of a run, from the first on.

    Args:
        steps: of the run.
    """

    def __init__(self, running: Running, config: Config, prompts: Prompts, steps: int) -> None:
        self._draws = PromptDraws(lambda number: drawn(running.algorithm, prompts, number), Progress(), steps)
        self._schedule = schedules.get(config.trainer.schedule)(running.algorithm, running.supervisor)

    def take(self, number: int) -> AskedStep:
        """Take the step of this number; the prompts of the next one are made ready meanwhile."""
        began = perf_counter()
        rollout = self._schedule.take_step(self._draws.context(number))
        self._draws.prepare(number)
        metrics = self._schedule.finish_step()
        self._draws.end_step(number)
        return AskedStep(rollout, metrics, perf_counter() - began)
