"""The loop: prompts in, one step of the algorithm, metrics out."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from hybridflow.algorithms import Algorithm
from hybridflow.batch import Batch
from hybridflow.config.schema import Config
from hybridflow.controller import put
from hybridflow.observe.folder import RunFolder
from hybridflow.observe.live import Live
from hybridflow.tasks import Prompts, Task
from hybridflow.trainer.build import Running
from hybridflow.trainer.validate import validate, with_preferences


@dataclass
class Outcome:
    """How a run went.

    Attributes:
        accuracy: on held-out prompts or pairs, by the number of steps after which it was measured.
    """

    steps: int = 0
    seconds: float = 0.0
    accuracy: dict[int, float] = field(default_factory=dict)


def train(config: Config, running: Running, task: Task, folder: RunFolder, live: Live) -> Outcome:
    """Take the configured steps; stop early at `trainer.stop_at_accuracy`."""
    settings, outcome, start = config.trainer, Outcome(), perf_counter()
    split = "warmup" if running.algorithm.supervised else "train"
    prompts = Prompts(task, split, config.algorithm.prompts_per_step, config.run.seed)
    _validate(config, running, task, folder, live, outcome)
    with live.bar(config.run.name, settings.steps):
        for step in range(settings.steps):
            metrics = _step(config, running, prompts, step, folder)
            folder.log({"step": step, **metrics})
            outcome.steps = step + 1
            left = (perf_counter() - start) / outcome.steps * (settings.steps - outcome.steps)
            live.step(outcome.steps, settings.steps, metrics, left)
            due = settings.validate_every and outcome.steps % settings.validate_every == 0
            if due or outcome.steps == settings.steps:
                _validate(config, running, task, folder, live, outcome)
                if outcome.accuracy[outcome.steps] >= (settings.stop_at_accuracy or float("inf")):
                    break
    outcome.seconds = perf_counter() - start
    return outcome


def _step(config: Config, running: Running, prompts: Prompts, step: int, folder: RunFolder) -> dict[str, float]:
    """One step, and its metrics."""
    begin, algorithm = perf_counter(), running.algorithm
    numbers = prompts.at(step)
    algorithm.number = running.supervisor.step = step
    rollout = algorithm.step(put(_rows(algorithm, prompts.task, prompts.split, numbers)))
    every = config.trainer.log_rollouts_every
    if every and step % every == 0:
        running.groups["grader"].log_rollouts(rollout, step=step, folder=str(folder.rollouts))
    metrics = running.supervisor.drain()
    running.supervisor.step = None
    seconds = perf_counter() - begin
    metrics["timing_s/step"] = seconds
    metrics["perf/tokens_per_s"] = metrics.get("perf/trained_tokens", 0.0) / seconds
    return metrics


def _rows(algorithm: Algorithm, task: Task, split: str, numbers: np.ndarray) -> Batch:
    """What a step of the algorithm is given."""
    if algorithm.preferences:
        return with_preferences(task).preferences(split, numbers)
    return task.supervised(split, numbers) if algorithm.supervised else task.rows(split, numbers)


def _validate(config: Config, running: Running, task: Task, folder: RunFolder, live: Live, outcome: Outcome) -> None:
    found = validate(running, task, config.trainer.validation_prompts)
    accuracy = outcome.accuracy[outcome.steps] = found["accuracy"]
    folder.log({"step": outcome.steps, **{f"validation/{name}": value for name, value in found.items()}})
    rows = "pairs" if running.algorithm.preferences else "prompts"
    live.say(f"after {outcome.steps} steps: accuracy {accuracy:.3f} on held-out {rows}")
