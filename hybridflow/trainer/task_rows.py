"""The configured task, with rows that the models of a run can take."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hybridflow.algorithms import Algorithm, algorithms
from hybridflow.config.model_roles import section, with_models
from hybridflow.config.schema import Config
from hybridflow.config.validation_sets import validation_sets
from hybridflow.environments.conversation_settings import conversation_options
from hybridflow.errors import ConfigError, shown
from hybridflow.models import read_shape
from hybridflow.preflight import environment_checks
from hybridflow.tasks import SPLITS, Task
from hybridflow.tasks import build as build_task
from hybridflow.tasks.chat_settings import chat_form
from hybridflow.tasks.chosen_graders import accuracy_grader, answer_checks, metadata_checks
from hybridflow.tasks.fitted_task import FittedTask, Limits
from hybridflow.tasks.template_trial import refuse_endless
from hybridflow.tasks.tokenizer import end_ids, load_tokenizer
from hybridflow.tasks.vocabulary import Vocabulary, differences
from hybridflow.trainer.chosen_rows import HeldOut, held_out_rows, judged, split_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_task(config: Config, splits: Container[str] = SPLITS) -> FittedTask:
    """Load the configured task, with the tokenizer of the actor's model.

    Args:
        splits: those that will be read.

    Raises ConfigError if a model's folder cannot be read or the options are not right, and whatever the task raises.
    """
    algorithm = algorithms.get(config.algorithm.name)
    try:
        tokenizer = load_tokenizer(config.actor.model.path)
        refuse_endless(tokenizer, config.task.chat_template_kwargs)
        fitting = limits(config)
    except (OSError, ValueError) as error:
        raise ConfigError(f"actor.model.path: {error}") from error
    used = {split: way for split, way in ways(algorithm).items() if split in splits}
    task = _task(config, algorithm, tokenizer)
    environment_checks.check_template(config, task)
    return FittedTask(task, fitting, config.task.too_long, used, config.task.malformed, config.task.curriculum)


def load_validation_sets(config: Config, say: Callable[[str], None]) -> list[HeldOut]:
    """Load the tasks of `trainer.validation_sets`, and look at what validations will take of them.

    Raises ConfigError naming a set that gives no such rows.
    """
    sets = []
    for name, settings in validation_sets(config).items():
        try:
            sets.append(load_held_out(replace(config, task=settings), say, name))
        except (ConfigError, ValueError) as error:
            raise ConfigError(f"trainer.validation_sets.{name}: {error}") from error
    return sets


def check_grader_sources(config: Config, tasks: Iterable[Task]) -> None:
    """Raise ConfigError if `grader_sources` and the sources of these tasks do not fit, as far as these are known."""
    known = [task.source_names for task in tasks]
    there = frozenset[str]().union(*(names for names in known if names is not None))
    for role, settings in (("reward", config.reward), ("cost", config.cost)):
        named = [(grader, source) for grader, sources in settings.grader_sources.items() for source in sources]
        strange = next((pair for pair in named if pair[1] not in there), None)
        if strange and None not in known:
            names = ", ".join(sorted(name for name in there if name)) or "none"
            raise ConfigError(
                f"{role}.grader_sources.{strange[0]}: no row is of the source {shown(strange[1])}; there is {names}"
            )
    for source in sorted(there) if config.reward.grader_sources else ():
        try:
            accuracy_grader(config.reward, source)
        except ValueError as error:
            raise ConfigError(f"reward.grader_sources: {error}") from error


def learned_too(split: str, task: Task, sets: Iterable[HeldOut]) -> Iterator[str]:
    """Yield in a line each how many questions of sets to validate on are learned from too, as far as they are known.

    Args:
        split: the one that is learned from, of the run's task.
    """
    learned = (task.question_hashes or {}).get(split)
    for one in sets:
        asked = (one.task.question_hashes or {}).get("held_out")
        both = 0 if learned is None or asked is None else int(np.isin(asked, learned).sum())
        if both and asked is not None:
            yield (
                f"{one.name or 'held_out'}: {both} of its {len(asked)} questions are learned from too: what is right "
                "there need not be right elsewhere"
            )


def rows_changed(fingerprint: str, task: Task) -> bool:
    """Tell whether the rows of a task are others than those of this fingerprint. Of one that is "" nobody knows."""
    return bool(fingerprint and task.fingerprint and fingerprint != task.fingerprint)


def load_held_out(config: Config, say: Callable[[str], None], name: str = "") -> HeldOut:
    """Load the configured task for its held-out rows alone, and look at those that a validation takes.

    Raises ConfigError or DataError if it gives no such rows.
    """
    task = load_task(config, ("held_out",))
    for line in task.look():
        say(f"{name}: {line}" if name else line)
    if not len(held_out_rows(algorithms.get(config.algorithm.name), task, config.trainer.validation_prompts)):
        raise ConfigError("there are no held-out rows to answer; check the options of the task")
    return HeldOut(task, name)


def ways(algorithm: type[Algorithm]) -> dict[str, str]:
    """Return by split the method of a task that gives an algorithm its rows, and its validation."""
    learns = "supervised" if algorithm.supervised else "rows"
    return {
        split_of(algorithm): "preferences" if algorithm.preferences else learns,
        "held_out": "preferences" if judged(algorithm) == "pairs" else "rows",
    }


def limits(config: Config) -> Limits:
    """Return what the models of a run take. Raises OSError or ValueError if a folder cannot be read."""
    roles = with_models(config, algorithms.get(config.algorithm.name).roles_of(config.algorithm))
    folders = {role: section(config, role).model.path for role in roles}
    shapes = {role: read_shape(folder) for role, folder in folders.items()}
    tokens = config.rollout.max_sequence_tokens
    said = "rollout.max_sequence_tokens"
    for role, shape in shapes.items():
        if shape.max_positions < tokens:
            tokens = shape.max_positions
            said = f"max_position_embeddings of {folders[role]} ({role})"
    return Limits(
        tokens,
        config.rollout.max_response_tokens,
        tuple(Vocabulary(folders[role], shape.vocab, role) for role, shape in shapes.items()),
        f"{said} = {tokens}",
    )


def notes(config: Config) -> Iterator[str]:
    """Yield what a user should know of the run's tokenizers.

    Raises ConfigError if a role's tokens mean other things than the actor's, or if no response could end.
    """
    actor = config.actor.model.path
    vocabularies = limits(config).vocabularies
    for vocabulary in vocabularies:
        difference = differences(actor, vocabulary.folder)
        if difference and difference.ordinary:
            raise ConfigError(f"{vocabulary.role}.model.path: its tokens are not the actor's: {difference.ordinary}")
        if difference and difference.added:
            yield (
                f"{vocabulary.role}: {len(difference.added)} added tokens of {actor} are others or none in "
                f"{vocabulary.folder}, such as {next(iter(difference.added.values()))}; it does not know what they mean"
            )
    smallest = min(vocabularies, key=lambda vocabulary: vocabulary.size)
    try:
        ends = end_ids(actor, config.task.chat_template_kwargs)
    except (OSError, ValueError) as error:
        raise ConfigError(f"actor.model.path: {error}") from error
    if not ends or judged(algorithms.get(config.algorithm.name)) != "prompts":
        return
    if ends[0] >= smallest.size:
        raise ConfigError(f"actor.model.path: no response can end: it has {smallest.described(ends[0])}")
    if 0 < config.rollout.vocabulary <= ends[0]:
        raise ConfigError(
            f"rollout.vocabulary: no response can end: {config.rollout.vocabulary} given, and the ids that end one are "
            f"{', '.join(map(str, ends))}; give more than {ends[0]}, or 0"
        )


def _task(config: Config, algorithm: type[Algorithm], tokenizer: PreTrainedTokenizerBase) -> Task:
    graded = algorithm.learner != "reward_model"  # whose answers nobody grades
    return build_task(
        config.task.name,
        tokenizer,
        config.task.options,
        grader=accuracy_grader(config.reward) if graded else "",
        answer_checks=answer_checks(config.reward) if graded else lambda source: [],
        metadata_checks=metadata_checks(config.reward) if graded else None,
        template_options=conversation_options(config.task, config.environment),
        chat_form=chat_form(config.task),
    )
