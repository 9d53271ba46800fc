"""Launch of a subcommand that trains: plugins, checks of all jobs, then Hydra's application (`hydra_application`).

Hydra's `--help`, `--cfg`, `--info`, `-m` and overrides keep their meaning; `--check` is ours. Nothing heavy is imported
before the first job starts, and no job starts before all of them are known to be sound.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import MappingProxyType

from hydra._internal.utils import get_args_parser  # hydra.main's own parser; there is no public way to it

from hybridflow import interrupt, preflight
from hybridflow.bounded_code import kept_alive, told_where
from hybridflow.cli import hydras_record
from hybridflow.cli.hydra_application import hand_over, job_name
from hybridflow.config import (
    Config,
    auto_settings,
    compose,
    escapes,
    key_suggestions,
    plugins,
    secret_settings,
)
from hybridflow.errors import ConfigError, before_the_start
from hybridflow.observe import terminal
from hybridflow.observe.run_lock import locked
from hybridflow.observe.terminal import one_line
from hybridflow.preflight.run_folder_checks import folder_of
from hybridflow.trainer import way_on

SWEEP_BY_OVERRIDE = "hydra.mode=MULTIRUN"
CHECK = "--check"
TELL_EVERY_S = 10.0  # of the checks of a sweep, whose jobs may be many


def launch(subcommand: str, argv: Sequence[str]) -> int:
    """Carry out `hybridflow SUBCOMMAND ARGV` and return the exit status.

    Args:
        subcommand: `train`, `sft`, `train-reward` or `train-cost`, also the name of its primary configuration.
        argv: what follows it: Hydra's flags and overrides.

    Raises:
        ConfigError: the settings cannot be run; nothing was started.
    """
    only_check = CHECK in argv
    argv = escapes.quoted([argument for argument in argv if argument != CHECK])
    parser = get_args_parser()
    parser.prog = f"hybridflow {subcommand}"
    parser.allow_abbrev = False  # else --experiment=NAME is taken for --experimental-rerun
    options, strange = parser.parse_known_intermixed_args(list(argv))
    if strange:
        raise ConfigError("\n".join(map(_strange_flag, strange)))
    ordered = _flags_first(argv, options.overrides)
    _refuse(options)
    if options.shell_completion:
        return hand_over(subcommand, ordered)
    if options.hydra_help:
        with terminal.tamed():
            return hand_over(subcommand, ordered)
    jobs = _jobs(options)
    if options.help or options.cfg or options.info:
        _check_jobs(options, options.config_name or subcommand, jobs, complete=False)
        with terminal.tamed():
            return hand_over(subcommand, ordered, len(jobs))
    configs = _check_jobs(options, options.config_name or subcommand, jobs, complete=True)
    if only_check:
        return check(configs)
    folders = list(map(folder_of, configs))
    with interrupt.ShieldedStack() as stack:
        _claim(folders, stack, alone=not _sweeps(options))
        stack.enter_context(hydras_record.kept(folders))
        return hand_over(subcommand, ordered, len(jobs))


def check(configs: Sequence[Config]) -> int:
    """Do all that these runs do before they start anything, their settings checked before; return the exit status."""
    with before_the_start():
        from hybridflow.trainer.preparation import check as check_run

        for config in configs:
            if len(configs) > 1:
                terminal.say(one_line(f"{config.run.name}:"))
            check_run(config)
    terminal.say(f"settings, models and rows are sound; nothing was started: without {CHECK} it runs")
    return 0


def _flags_first(argv: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Put overrides last: Hydra's parser refuses overrides on both sides of a flag."""
    left = Counter(overrides)
    flags = []
    for argument in argv:
        if left[argument]:
            left[argument] -= 1
        else:
            flags.append(argument)
    return [*flags, *overrides]


def _strange_flag(flag: str) -> str:
    """Describe what is wrong with an argument that begins with a dash and is no flag."""
    flag = secret_settings.without_secret(flag)
    key, equals, value = flag.lstrip("-").partition("=")
    setting = f"{key_suggestions.meant(key)}={value if equals else 'VALUE'}"
    return f"{flag}: there is no such flag; a setting is given without dashes, as {setting}"


def _refuse(options: argparse.Namespace) -> None:
    if options.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun: not supported (it reads a pickle); give the overrides again")
    if options.multirun and (options.cfg or options.info):
        raise ConfigError("-m: --cfg and --info are of one job; leave -m and its several values out")
    if options.config_path is not None:
        raise ConfigError("-cp: not supported; add a folder of your own options with -cd FOLDER")


def _sweeps(options: argparse.Namespace) -> bool:
    return options.multirun or SWEEP_BY_OVERRIDE in options.overrides


def _jobs(options: argparse.Namespace) -> list[list[str]]:
    """List the overrides of each job: one, or the product of a sweep's values, as ordered by Hydra's basic sweeper."""
    if not _sweeps(options):
        return [list(options.overrides)]
    return compose.sweep_jobs(options.overrides, options.config_dir)


def _check_jobs(options: argparse.Namespace, config_name: str, jobs: list[list[str]], complete: bool) -> list[Config]:
    """Compose every job and, if it is to run, check it; return the settings of those that are.

    Raises ConfigError with everything found, each thing once.
    """
    problem_lines: dict[str, None] = {}
    configs: list[Config] = []
    warned: set[str] = set()
    told_s = monotonic()
    for number, overrides in enumerate(jobs):
        if monotonic() - told_s >= TELL_EVERY_S:
            told_s = monotonic()
            terminal.say(f"{number} of {len(jobs)} jobs are checked; the first starts when all are")
        label = f"job {number}: " if len(jobs) > 1 else ""
        try:
            job = composed(config_name, overrides, options.config_dir)
            if _sweeps(options) and complete:
                job.tree.run.name = job_name(job.to_config().run.name, number)
                job = replace(job)  # whose settings are made anew
            if (
                options.cfg
                and not _sweeps(options)
                and not job.absent
                and (line := auto_settings.described(job.to_config()))
            ):
                terminal.complain(line)  # Hydra prints what is set, which may be `auto`
            with way_on.told(job.to_config()) if complete and not _sweeps(options) else nullcontext():
                lines = list(map(one_line, problems(job))) if complete else []
            if complete and not lines:
                configs.append(job.to_config())
                _warn(job, warned)
        except ConfigError as error:
            lines = str(error).split("\n")
        new = [line for line in lines if not any(known.endswith(line) for known in problem_lines)]
        problem_lines.update(dict.fromkeys(label + line for line in new))
    if problem_lines:
        raise ConfigError("\n".join(problem_lines))
    return configs


def _warn(job: compose.Composed, warned: set[str]) -> None:
    """Say what is doubtful about a job, with the place where it was set; what has been said of another job, once."""
    for warning in preflight.warnings(job):
        line = one_line(job.origins.annotate(warning))
        if line not in warned:
            terminal.complain(f"warning: {line}")
        warned.add(line)


def _claim(folders: Sequence[Path], stack: ExitStack, *, alone: bool) -> None:
    """Lock the run folder of a job before Hydra writes into it; jobs of a sweep, which may be many, do so one by one.

    Raises ConfigError if another process has one of them; then nothing was started or changed.
    """
    for folder in folders:
        if alone:
            stack.enter_context(locked(folder))
        else:
            with locked(folder):
                pass


def composed(config_name: str, overrides: Sequence[str], config_dir: str | Path | None) -> compose.Composed:
    """Compose a job, its plugins imported before. Raises ConfigError as `compose.compose`."""
    with told_where(terminal.complain):
        plugins.load(plugins.named(config_name, overrides, config_dir))
    return compose.compose(config_name, overrides, config_dir)


def problems(job: compose.Composed, pending: preflight.PendingModels = MappingProxyType({})) -> list[str]:
    """List what is wrong with a job, each with the place where it was set; `pending`: see `preflight.problems`."""
    config = job.to_config()
    with kept_alive(), told_where(terminal.complain):  # components of the user's are made and tried
        plugins.load(config.plugins)
        found = preflight.problems(config, pending, job.origins)
    return [job.origins.annotate(problem) for problem in found]
