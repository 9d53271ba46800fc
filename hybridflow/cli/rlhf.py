"""`hybridflow rlhf`: several stages as one command, each a subcommand that trains and leaves its model to the next."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from hybridflow import interrupt, preflight
from hybridflow.cli import hydra_application, hydras_record, launch, stage_record
from hybridflow.cli.stage_record import Record
from hybridflow.cli.stages import Stage, read
from hybridflow.config import Config, compose, escapes, plugin_sections, plugins
from hybridflow.errors import ConfigError, HybridFlowError, Stopped
from hybridflow.models import ModelShape
from hybridflow.observe import terminal
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.run_lock import locked
from hybridflow.observe.terminal import cell, one_line
from hybridflow.preflight.run_folder_checks import folder_of


@dataclass(frozen=True)
class Job:
    """Stage that was checked.

    Attributes:
        key: stands for its settings and for those of the stages before it.
        plugins: modules that were imported before it was composed.
    """

    stage: Stage
    config: Config
    key: str
    plugins: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Run folder of the stage."""
        return folder_of(self.config)


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow rlhf ARGV` and return the exit status.

    Raises:
        ConfigError: a stage cannot be run as given; nothing was started.
        HybridFlowError: a stage failed.
    """
    options = _parser().parse_intermixed_args(escapes.quoted(argv))
    _refuse_sweeps(options)
    stages = read(options.config_name, options.overrides, options.config_dir)
    if options.show:
        terminal.say("\n".join(shlex.join(_command(stage, options.config_dir)) for stage in stages))
        return 0
    jobs = checked(stages, options.config_dir)
    with ExitStack() as stack:
        for job in jobs:  # all of them at once: another process must change none between two stages
            stack.enter_context(locked(job.folder))
        _carry_out(jobs, options.config_dir)
        _table(jobs)
    return 0


def checked(stages: Sequence[Stage], config_dir: Path | None = None) -> list[Job]:
    """Compose and check every stage; the models that stages leave are taken as there for those after them.

    Raises ConfigError with everything found.
    """
    problems: list[str] = []
    warnings: dict[str, None] = {}
    jobs: list[Job] = []
    pending: dict[Path, ModelShape | None] = {}
    for stage in stages:
        try:
            own = plugins.named(stage.command, stage.overrides, config_dir)
            plugins.load(own)
            with plugin_sections.alone(own):
                composed = launch.composed(stage.command, stage.overrides, config_dir)
                # What is for every stage may be of no use to one.
                composed = replace(composed, origins=replace(composed.origins, shared=stage.shared))
                config = composed.to_config()
                lines = launch.problems(composed, pending)
                told = [] if lines else preflight.warnings(composed)
        except ConfigError as error:  # what this stage leaves is not known, so neither is what later ones find
            problems += [f"{stage.name}: {line}" for line in str(error).split("\n")]
            break
        jobs.append(Job(stage, config, stage_record.key_of(config, jobs[-1].key if jobs else ""), tuple(own)))
        problems += [
            f"{stage.name}: {line}" for line in (*map(one_line, lines), *_in_the_way(jobs), *_unreadable(jobs[-1]))
        ]
        warnings |= dict.fromkeys(told)
        pending |= preflight.output_model(config, pending)
    if problems:
        raise ConfigError("\n".join(problems))
    for warning in warnings:
        terminal.complain(f"warning: {one_line(warning)}")
    return jobs


def _unreadable(job: Job) -> list[str]:
    """Describe what is wrong with what an earlier run of the stage left, before any stage runs."""
    try:
        stage_record.judge(job.config, job.key, job.folder, follows_new=False)
    except ConfigError as error:
        return str(error).split("\n")
    return []


def _in_the_way(jobs: Sequence[Job]) -> list[str]:
    """Describe a run folder that the last of these jobs shares with another."""
    last = jobs[-1]
    others = [job.stage.name for job in jobs[:-1] if job.folder == last.folder]
    if not others:
        return []
    return [
        f"run.name: its run folder {last.folder} is that of stage {others[0]} too; give each its own, as "
        f"{last.stage.name}.run.name=NAME"
    ]


def _refuse_sweeps(options: argparse.Namespace) -> None:
    swept = [o.input_line for o in compose.parse(options.overrides) if o.is_sweep_override()]
    swept += [line for line in options.overrides if line.startswith("hydra.")]
    if options.multirun or swept:
        raise ConfigError(
            f"{swept[0] if swept else '-m'}: stages cannot be swept; call hybridflow rlhf once for each value, with a "
            "run.root of its own"
        )


def _carry_out(jobs: Sequence[Job], config_dir: Path | None) -> None:
    """Run what is not complete. Raises HybridFlowError if a stage fails."""
    new = False
    for number, job in enumerate(jobs, 1):
        with _after_stages(number - 1, len(jobs)):
            interrupt.check()  # a signal may have come as the stage before ended
            new = _carry_out_one(job, f"{number} of {len(jobs)}", config_dir, new) or new


@contextmanager
def _after_stages(complete: int, stages: int) -> Iterator[None]:
    """Let a signal that ends a stage which has saved nothing say of those before it that they are complete."""
    try:
        yield
    except Stopped as stop:
        if stop.saved or not complete:
            raise
        words = f"{stop}; {complete} of {stages} stages complete, and the same command goes on there"
        raise Stopped(stop.number, words, saved=True) from None


def _carry_out_one(job: Job, place: str, config_dir: Path | None, new: bool) -> bool:
    """Run a stage, unless it is complete; tell whether it was run.

    Args:
        place: its number, of how many.
        new: one before it was run.
    """
    verdict = stage_record.judge(job.config, job.key, job.folder, new)
    head = f"stage {place}, {job.stage.name}"
    if verdict.complete:
        terminal.say(one_line(f"{head}: complete, not run again ({job.folder})"))
        return False
    stage = job.stage
    if verdict.afresh and job.config.trainer.resume == "auto":
        stage = replace(stage, overrides=(*stage.overrides, "trainer.resume=never"))
    command = _command(stage, config_dir)
    terminal.say(one_line(f"{head}: {shlex.join(command)}{f'  # {verdict.why}' if verdict.why else ''}"))
    start = perf_counter()
    with (
        plugin_sections.alone(job.plugins),
        stage_record.begun(job.folder, job.key),
        hydras_record.kept([job.folder]),
    ):
        status = hydra_application.hand_over(stage.command, command[2:])
    if status:
        raise HybridFlowError(
            f"stage {job.stage.name}, {place}, failed; its error stands above, and the same command goes on from there"
        )
    Record(job.key, perf_counter() - start).write(job.folder)
    return True


def _command(stage: Stage, config_dir: Path | None) -> list[str]:
    """Return a stage as a command line."""
    folder = [] if config_dir is None else ["-cd", str(config_dir)]
    return ["hybridflow", stage.command, *folder, *stage.overrides]


def _table(jobs: Sequence[Job]) -> None:
    """Print what the stages did, by their run folders."""
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "accuracy before", "after", "steps", "wall time", title="rlhf", title_justify="left")
    table.add_column("model", overflow="fold")
    for job in jobs:
        record = stage_record.read(job.folder)
        lines = RunFolder(job.folder).metric_lines()
        accuracy = [line["validation/accuracy"] for line in lines if "validation/accuracy" in line]
        steps = sum("timing_s/step" in line for line in lines)
        ends = ["", ""]
        if accuracy:  # null where no answer had a grade
            known = (value if isinstance(value, int | float) else None for value in (accuracy[0], accuracy[-1]))
            ends = ["none" if value is None else f"{value:.3f}" for value in known]
        seconds = record.seconds if record else None
        shown = (job.stage.name, *ends, str(steps), f"{seconds or 0:.0f} s", str(job.folder / "model"))
        table.add_row(*map(cell, shown))
    terminal.draw(Console(highlight=False, soft_wrap=True), table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hybridflow rlhf",
        description="Run stages one after the other, each a subcommand that trains. Those that are complete are not "
        "run again; with trainer.resume=never (or STAGE.trainer.resume=never) they are.",
    )
    parser.add_argument("overrides", nargs="*", metavar="[STAGE.]KEY=VALUE", help="for every stage, or for one")
    parser.add_argument("-cn", dest="config_name", default="rlhf", metavar="NAME", help="the file of stages: rlhf")
    parser.add_argument("-cd", dest="config_dir", type=Path, metavar="FOLDER", help="a folder with files of yours")
    parser.add_argument("--show", action="store_true", help="print the commands, and run nothing")
    parser.add_argument("-m", "--multirun", action="store_true", help=argparse.SUPPRESS)
    return parser
