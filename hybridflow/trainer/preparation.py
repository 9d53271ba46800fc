"""Preparation of a run: all that is done before anything starts. No Ray, which only what starts it imports."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridflow.algorithms import algorithms
from hybridflow.bounded_code import told_where
from hybridflow.config.schema import Config
from hybridflow.errors import ConfigError, DataError, HybridFlowError, before_the_start
from hybridflow.observe.live_view import Live
from hybridflow.observe.run_folder import RunFolder
from hybridflow.preflight import run_folder_checks
from hybridflow.registry import import_plugins
from hybridflow.roles import TrainedRole, roles
from hybridflow.tasks import Prompts, Task
from hybridflow.trainer import checkpoint
from hybridflow.trainer.chosen_rows import HeldOut, held_out_rows, rows_for, split_of
from hybridflow.trainer.resume import choose
from hybridflow.trainer.task_rows import (
    check_grader_sources,
    learned_too,
    load_task,
    load_validation_sets,
    notes,
    rows_changed,
)


def check(config: Config) -> None:
    """Do all that a run does before it starts anything. Raises as `run`."""
    if problems := run_folder_checks.problems(config):
        raise ConfigError("\n".join(problems))
    import_plugins(config.plugins)
    live = Live()
    with before_the_start(), told_where(live.say):
        prepared(config, RunFolder(run_folder_checks.folder_of(config)), live)


@dataclass(frozen=True)
class Prepared:
    """State of a run before anything is started.

    Attributes:
        source: the checkpoint that it goes on from.
        goes_on: that is one of its own.
        more: sets to validate on.
    """

    source: Path | None
    goes_on: bool
    task: Task
    more: Sequence[HeldOut]


def prepared(config: Config, folder: RunFolder, live: Live) -> Prepared:
    """Choose the checkpoint and load the rows of a run. Raises ConfigError or HybridFlowError for what is wrong."""
    source = choose(config, folder.checkpoints, live.say)
    goes_on = source is not None and source.parent == folder.checkpoints
    if source is not None:
        called = algorithms.get(config.algorithm.name).roles_of(config.algorithm)
        checkpoint.check_roles(source, [role for role in called if issubclass(roles.get(role), TrainedRole)])
        checkpoint.check_schedule(source, config)
    if source is not None and goes_on:
        folder.check_sizes(checkpoint.sizes(source))
    task = _checked_task(config, live)
    if source is not None and rows_changed(checkpoint.rows_fingerprint(source), task):
        live.say(
            f"warning: the rows of task {config.task.name} are not those that {source} was made with: what follows "
            "is learned from others, in another order"
        )
    more = load_validation_sets(config, live.say)
    check_grader_sources(config, [task, *(one.task for one in more)])
    split = split_of(algorithms.get(config.algorithm.name))
    for line in learned_too(split, task, [HeldOut(task), *more]):
        live.say(f"warning: {line}")
    return Prepared(source, goes_on, task, more)


def _checked_task(config: Config, live: Live) -> Task:
    """Load the task and draw its first rows. Raises ConfigError with the cause and its line if they cannot be drawn."""
    try:
        task = load_task(config)
        for line in (*notes(config), *task.look()):
            live.say(line)
        draw_once(config, task)
        return task
    except DataError as error:
        raise ConfigError(f"task.name: {config.task.name}: {error}") from error
    except HybridFlowError:
        raise
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        message = "".join(traceback.format_exception_only(error)).strip()
        raise ConfigError(
            f"task.name: {config.task.name} gives no rows: {message} ({at.filename}:{at.lineno})"
        ) from error


def draw_once(config: Config, task: Task) -> None:
    """Draw what the first step and the validations begin with, so that what is wrong with it shows before the start."""
    algorithm = algorithms.get(config.algorithm.name)
    prompts = Prompts(task, split_of(algorithm), config.algorithm.prompts_per_step, config.run.seed)
    rows_for(algorithm, task, prompts.split, prompts.at(0))
    held_out_rows(algorithm, task, config.trainer.validation_prompts)
