"""`hybridflow evaluate`: how good a model is on held-out questions, and whether a second one is better."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import OmegaConf

from hybridflow import interrupt, preflight
from hybridflow.cli import launch
from hybridflow.config import Config, compose, escapes, pool_sizes
from hybridflow.errors import ConfigError
from hybridflow.observe import terminal
from hybridflow.observe.statistic_texts import comparison_text, with_errors
from hybridflow.observe.terminal import cell, one_line
from hybridflow.placement import started_roles
from hybridflow.preflight.hub_downloads import fetched

if TYPE_CHECKING:
    from hybridflow.trainer.answer_statistics import Comparison
    from hybridflow.trainer.evaluation import Evaluation
    from hybridflow.trainer.saved_run import SavedModel

# What makes of supervised training an evaluation: no step, no optimizer. Beside the actor there is a grader, always.
NO_TRAINING = (
    *("algorithm=sft", "trainer.steps=0", "trainer.resume=never", "trainer.save_every=0"),
    "actor.worker=frozen_actor",
)
OF_RUN = ("plugins", "task", "reward", "rollout", "environment")  # sections of a run that its models are evaluated with
OF_TRAINER = ("validation_prompts", "validation_samples", "validation_temperature", "validation_sets")


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow evaluate ARGV` and return the exit status.

    Raises:
        ConfigError: a model or a setting is wrong; nothing was started.
        HybridFlowError: an evaluation failed.
    """
    options = _parser().parse_intermixed_args(list(argv))
    models = [word for word in options.words if "=" not in word]
    overrides = escapes.quoted([word for word in options.words if "=" in word])
    if not 1 <= len(models) <= 2:
        raise ConfigError(f"{len(models)} models given, one or two were expected: hybridflow evaluate MODEL [MODEL]")
    with interrupt.ShieldedStack() as stack:
        places = [stack.enter_context(_model_folder(model)) for model in models]
        run = next((saved for _, saved in places if saved is not None), None)
        jobs = [
            _job(place, run, [*overrides, *([] if _named(overrides) else [f"run.name=evaluate/{name}"])], options)
            for (place, _), name in zip(places, _names(models), strict=True)
        ]
        return _carry_out(jobs, models)


def _carry_out(jobs: Sequence[Config], models: Sequence[str]) -> int:
    from hybridflow.trainer.answer_statistics import compare
    from hybridflow.trainer.evaluation import evaluate

    found: list[Evaluation] = []
    for config, model in zip(jobs, models, strict=True):
        terminal.say(one_line(f"evaluating {model}"))
        found.append(evaluate(config, model))
        found[-1].write()
    compared: dict[str, Comparison] = {}
    if len(found) == 2:
        compared = {name: compare(answers, found[1].answers[name]) for name, answers in found[0].answers.items()}
        found[1].write(compared, found[0].model)
    _tell(found, compared)
    return 0


def _job(place: Path, run: SavedModel | None, overrides: list[str], options: argparse.Namespace) -> Config:
    """Compose and check the settings of one evaluation; with a run, they are its own but for `overrides`.

    Raises ConfigError with everything found.
    """
    with _settings_of(run, overrides) as folder:
        folders = [str(one) for one in (folder, options.config_dir) if one is not None]
        search = [f"hydra.searchpath=[{','.join(map(repr, folders[1:]))}]"] if folders[1:] else []
        of_run = ["experiment=run"] if folder is not None else []
        every = [*of_run, *search, *overrides, f"actor.model.path={_quoted(place)}", *NO_TRAINING]
        job = launch.composed("sft", every, folders[0] if folders else None)
        if "reward.grader" in job.absent and (grader := _grader(job)):
            job = launch.composed("sft", [*every, f"reward.grader={grader}"], folders[0] if folders else None)
    if problems := launch.problems(job):
        raise ConfigError("\n".join(map(one_line, problems)))
    for warning in preflight.warnings(job):
        terminal.complain(f"warning: {one_line(warning)}")
    return job.to_config()


@contextmanager
def _model_folder(model: str) -> Iterator[tuple[Path, SavedModel | None]]:
    """Have the folder of a model: its own, the hub's, that of a run's end, or an export of a checkpoint."""
    from hybridflow.trainer.saved_run import find, is_run

    if not is_run(model):
        try:
            model = fetched(model)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if not (Path(model) / "config.json").is_file():
            raise ConfigError(
                f"{model}: there is no model: a Hugging Face folder (with a config.json), a run folder or a checkpoint "
                "of one, as runs/mine:40, or one of the hub, as owner/name@main, was expected"
            )
        yield Path(model).absolute(), None
        return
    saved = find(model)
    if saved.role != "actor":
        raise ConfigError(f"{model}: it is a {saved.role.replace('_', ' ')}, which answers nothing")
    if saved.checkpoint is None:
        yield saved.folder, saved
        return
    from hybridflow.trainer.export import export

    with TemporaryDirectory(prefix="hybridflow-evaluate-") as folder:
        export(saved, Path(folder) / "model")
        yield Path(folder) / "model", saved


@contextmanager
def _settings_of(saved: SavedModel | None, overrides: Sequence[str]) -> Iterator[Path | None]:
    """Have a folder with an experiment `run`: what a run was validated with, but for groups that are chosen anew."""
    if saved is None:
        yield None
        return
    chosen = {override.partition("=")[0].lstrip("+") for override in overrides}
    if "experiment" in chosen:
        raise ConfigError(
            f"experiment: a model of the run {saved.run} is evaluated as that run validated; change single settings, "
            "or give its folder model/ in place of the run"
        )
    whole: Any = OmegaConf.to_container(OmegaConf.structured(saved.config), resolve=True, enum_to_str=True)
    settings = {name: whole[name] for name in OF_RUN if name not in chosen}
    settings["placement"] = {"pools": {"main": _size(saved.config)}, "device": whole["placement"]["device"]}
    settings["actor"] = {name: whole["actor"][name] for name in ("model", "parallel", "engine", "max_tokens_per_rank")}
    if "rollout" in started_roles(
        saved.config, ("actor",)
    ):  # what generation had of its own need not fit the actor's ranks
        settings.get("rollout", {}).pop("parallel", None)
    settings["trainer"] = {name: whole["trainer"][name] for name in OF_TRAINER}
    settings["run"] = {name: whole["run"][name] for name in ("root", "seed")}
    with TemporaryDirectory(prefix="hybridflow-evaluate-") as folder:
        file = Path(folder) / "experiment" / "run.yaml"
        file.parent.mkdir()
        file.write_text("# @package _global_\n" + yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        yield Path(folder)


def _size(config: Config) -> Any:
    """Return the size of the pool that trained the actor: all that an evaluation needs is there."""
    pools = config.placement.pools
    size = pool_sizes.size_of(pools[config.placement.roles.get("actor") or next(iter(pools))])
    return size.slots or pool_sizes.AUTO


def _grader(job: compose.Composed) -> str:
    """Return the grader that fits the task, if it says one."""
    from hybridflow.tasks.task import tasks

    name = OmegaConf.select(job.tree, "task.name", throw_on_missing=False)
    return tasks.get(name).grader if name in tasks else ""


def _quoted(path: Path) -> str:
    """Write a path as Hydra takes it, whatever is in it."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _named(overrides: Sequence[str]) -> bool:
    return any(override.startswith("run.name=") for override in overrides)


def _names(models: Sequence[str]) -> list[str]:
    """Name the run folder of each model after it; the second of two alike gets a number."""
    names = [re.sub(r"[^\w.-]+", "-", "-".join(Path(model).parts[-2:])).strip("-.") or "model" for model in models]
    return [name if name not in names[:place] else f"{name}-{place + 1}" for place, name in enumerate(names)]


def _tell(found: Sequence[Evaluation], compared: Mapping[str, Comparison]) -> None:
    """Print the statistics of the models side by side, and the paired test."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="evaluation", title_justify="left")
    for column in ("", *(one.model for one in found)):
        table.add_column(cell(column), overflow="fold")
    texts = [_asked(one) | with_errors(one.statistics) for one in found]
    for metric in dict.fromkeys(metric for own in texts for metric in own):
        table.add_row(cell(metric), *(cell(own.get(metric, "")) for own in texts))
    table.add_row(cell("answers"), *(cell(str(one.folder / "validation")) for one in found))
    terminal.draw(Console(highlight=False, soft_wrap=True), table)
    for name, one in compared.items():
        text = comparison_text((found[0].model, found[1].model), one.difference, one.error, one.p_value, one.questions)
        terminal.say(one_line(f"{name}: {text}" if name else text))


def _asked(evaluation: Evaluation) -> dict[str, str]:
    """Return by set how many questions were asked, and how often each if that is not once."""
    return {
        f"{name}/questions" if name else "questions": str(answers.questions)
        + (f", {answers.samples} answers to each" if answers.samples > 1 else "")
        for name, answers in evaluation.answers.items()
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hybridflow evaluate",
        description="Let a model answer held-out questions and grade the answers: accuracy, mean grade and, of several "
        "answers to each, pass@k and maj@k, with standard errors. Two models get the same questions, and a paired "
        "test. With a model of a run among them, they are evaluated as that run validated; settings change that.",
        epilog="Example: hybridflow evaluate runs/addition:best models/other trainer.validation_prompts=1000",
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="MODEL|KEY=VALUE",
        help="a Hugging Face folder, a run, or a checkpoint as runs/mine:40, :best, :latest; and settings, as in train",
    )
    parser.add_argument("-cd", dest="config_dir", type=Path, metavar="FOLDER", help="a folder with options of yours")
    return parser
