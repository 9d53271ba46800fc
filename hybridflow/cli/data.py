"""`hybridflow data`: what is in a file of rows or a task, before a run is made of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from hybridflow.cli.data_report import Report
from hybridflow.config import compose, escapes, plugins
from hybridflow.config.compose import Composed
from hybridflow.config.schema import RewardConfig, TaskConfig
from hybridflow.errors import ConfigError
from hybridflow.observe import terminal
from hybridflow.tasks.chat_settings import chat_form, template_options
from hybridflow.tasks.data_facts import Characters, Facts, Tokens, read_facts
from hybridflow.tasks.task import Task, build, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = "rows"  # the task that reads files
SPLITS = ("train", "held_out")  # warmup is a part of train
MOST_ROWS = 100_000
USAGE = "hybridflow data [PATH | TASK] [MODEL] [KEY=VALUE ...] [--rows N] [-cd FOLDER]"
EXAMPLES = """\
  hybridflow data gsm8k.jsonl                                      in characters
  hybridflow data gsm8k.jsonl models/mine rollout.max_sequence_tokens=512
  hybridflow data addition task.options.max_operand=20             a registered task
  hybridflow data experiment=mine                                  what an experiment would read, with its model
"""


@dataclass(frozen=True)
class Asked:
    """Command line, understood.

    Attributes:
        source: a path or the name of a task; "": the settings name the task.
        model: a model folder, or "".
        settings: `key=value`, as of `hybridflow train`.
    """

    source: str
    model: str
    settings: tuple[str, ...]
    folder: Path | None
    rows: int


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow data ARGV` and return the exit status.

    Raises ConfigError if the settings, the model or the task cannot be read; DataError if there are no rows.
    """
    asked = _asked(argv)
    composed = _composed(asked)
    settings = OmegaConf.to_object(composed.tree.task)
    assert isinstance(settings, TaskConfig)
    folder = _model_folder(asked, composed)
    tokenizer = _tokenizer(folder) if folder else None
    task = _task(settings, tokenizer, composed)
    facts = _facts(task, tokenizer is not None, asked.rows)
    if not facts:
        raise ConfigError(f"task.name: {settings.name}: neither {' nor '.join(SPLITS)} has any rows")
    report = Report(task, settings, folder, facts)
    for line in (*report.head(), *report.columns(), *report.samples(), *report.lengths(), *report.doubts()):
        terminal.say(line)
    for line in report.fit(*_limits(composed, folder), _limits_origin(composed)):
        terminal.say(line)
    return 0


def _model_folder(asked: Asked, composed: Composed) -> str:
    """Return the folder of the model, fetched from the hub if it is one with its revision; "" if none is named."""
    from hybridflow.preflight.hub_downloads import fetched

    named = asked.model or ("" if _missing(composed, "actor.model.path") else str(composed.tree.actor.model.path))
    try:
        return fetched(named) if named else ""
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _limits(composed: Composed, folder: str) -> tuple[int, int, str]:
    """Return the tokens of a sequence and of a response, and what sets the first."""
    tokens = int(composed.tree.rollout.max_sequence_tokens)
    response = int(composed.tree.rollout.max_response_tokens)
    said = f"rollout.max_sequence_tokens = {tokens}"
    if not folder or not (Path(folder) / "config.json").is_file():
        return tokens, response, said
    from hybridflow.models import read_shape

    try:
        positions = read_shape(folder).max_positions
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: {error}") from error
    if positions < tokens:
        return positions, response, f"max_position_embeddings of {folder} = {positions}"
    return tokens, response, said


def _limits_origin(composed: Composed) -> str:
    """Say where the settings of the limits were made, and how to make them where nobody has."""
    places = {key: composed.origins.find(f"rollout.{key}") for key in ("max_sequence_tokens", "max_response_tokens")}
    told = [f"rollout.{key}: {place or 'the default'}" for key, place in places.items()]
    how = "" if all(places.values()) else "; give those of your run: rollout.max_sequence_tokens=N or experiment=NAME"
    return f"{'; '.join(told)}{how}"


def _asked(argv: Sequence[str]) -> Asked:
    parser = argparse.ArgumentParser(
        prog="hybridflow data",
        usage=USAGE,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="PATH MODEL KEY=VALUE", help="see below")
    parser.add_argument("--rows", type=int, default=MOST_ROWS, metavar="N", help=f"of each split ({MOST_ROWS}; 0: all)")
    parser.add_argument("-cd", type=Path, dest="folder", metavar="FOLDER", help="with options of yours (task/)")
    options = parser.parse_intermixed_args(argv)
    places = [word for word in options.words if "=" not in word or Path(word).exists()]
    settings = tuple(word for word in options.words if word not in places)
    if len(places) > 2:
        parser.error(f"{places[2]!r} is one too many: a path or a task and a model folder were expected")
    if options.rows < 0:
        parser.error(f"--rows {options.rows}: a whole number of at least 0 was expected")
    if not places and not any(word.lstrip("+").startswith(("task=", "task.name=", "experiment=")) for word in settings):
        parser.error("name a file of rows, a task, or settings that do (experiment=NAME)")
    source, model = (*places, "", "")[:2]
    return Asked(source, model, settings, options.folder, options.rows)


def _composed(asked: Asked) -> Composed:
    """Compose the settings. Raises ConfigError for one that is wrong, or a task that is missing."""
    plugins.load(plugins.named("train", escapes.quoted(asked.settings), asked.folder))
    overrides = escapes.quoted([*_chosen(asked), *asked.settings])
    composed = compose.compose("train", overrides, asked.folder)
    plugins.load(composed.tree.plugins)
    if _missing(composed, "task.name"):
        raise ConfigError("task.name: it must be given: name a file of rows or a task")
    return composed


def _chosen(asked: Asked) -> Iterator[str]:
    """Yield the settings that the source stands for."""
    if not asked.source:
        return
    if asked.source in tasks:
        has_options = asked.source in compose.options("task", asked.folder)
        yield f"task={asked.source}" if has_options else f"task.name={asked.source}"
        return
    if not Path(asked.source).exists() and Path(asked.source).name == asked.source and "." not in asked.source:
        known = ", ".join(sorted(tasks))
        raise ConfigError(f"{asked.source}: there is no such file, and no such task; tasks are {known}")
    text = asked.source.replace("\\", "\\\\").replace("'", "\\'")
    yield f"task={FILES}"
    yield f"task.options.path='{text}'"


def _missing(composed: Composed, key: str) -> bool:
    return key in composed.absent or not OmegaConf.select(composed.tree, key)


def _tokenizer(folder: str) -> PreTrainedTokenizerBase:
    from hybridflow.tasks.template_trial import refuse_endless
    from hybridflow.tasks.tokenizer import load_tokenizer

    try:
        tokenizer = load_tokenizer(folder)
        refuse_endless(tokenizer, {})
        return tokenizer
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: {error}") from error


def _task(settings: TaskConfig, tokenizer: PreTrainedTokenizerBase | None, composed: Composed) -> Task:
    """Build the task; without a tokenizer, with one that nothing is encoded by. Raises ConfigError."""
    from hybridflow.tasks.chosen_graders import answer_checks, metadata_checks
    from hybridflow.tasks.tokenizer import char_tokenizer

    checks = more = None
    if not _missing(composed, "reward.grader"):
        reward = OmegaConf.to_object(composed.tree.reward)
        assert isinstance(reward, RewardConfig)
        checks = answer_checks(reward)
        more = metadata_checks(reward)
    if tokenizer is None:
        task = build(settings.name, char_tokenizer("0"), settings.options, answer_checks=checks, metadata_checks=more)
        task.chat_form = chat_form(settings)
        return task
    return build(
        settings.name,
        tokenizer,
        settings.options,
        answer_checks=checks,
        metadata_checks=more,
        template_options=template_options(settings),
        chat_form=chat_form(settings),
    )


def _facts(task: Task, has_model: bool, at_most: int) -> list[Facts]:
    measure = Tokens(task) if has_model else Characters(task)
    return [read_facts(task, split, measure, at_most) for split in SPLITS if task.size(split)]
