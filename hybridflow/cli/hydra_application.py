"""Hydra's application of a subcommand that trains: it composes the settings, or completes a line, and starts jobs.

What only a job needs is imported when one starts: a shell asks for completions here at every key.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hybridflow import interrupt
from hybridflow.cli import error_report
from hybridflow.config import Config, compose, error_messages, escapes, free_keys, option_loader
from hybridflow.config.provenance import Origins
from hybridflow.errors import ConfigError, HybridFlowError, UnexpectedError, before_the_start
from hybridflow.observe import logs, terminal
from hybridflow.observe.terminal import one_line

if TYPE_CHECKING:
    from hybridflow.cli.sweep_table import Job

FULL_ERROR = "HYDRA_FULL_ERROR"


def _settings_text() -> str:
    from hybridflow.cli.settings import settings_text

    return settings_text()


OmegaConf.register_new_resolver("hybridflow.settings", _settings_text, replace=True)  # of the help: train.yaml


def hand_over(subcommand: str, argv: Sequence[str], jobs: int = 1) -> int:
    """Let Hydra compose and start; return the exit status: of the job, or 1 if one of a sweep failed."""
    done: list[Job] = []
    here = os.getcwd()

    def start(tree: DictConfig) -> None:
        from hybridflow.cli.sweep_table import Job
        from hybridflow.preflight.run_folder_checks import folder_of

        interrupt.check()  # a signal may have come as the job before ended
        if os.getcwd() != here:
            terminal.complain(f"warning: hydra.job.chdir: paths are told from {here}, so the run stays there")
            os.chdir(here)
        config = _job_config(tree, jobs)
        overrides = [override.lstrip("+") for override in HydraConfig.get().overrides.task]
        done.append(Job(overrides, _run(config), folder_of(config)))

    compose.store_schema()
    app = hydra.main(str(compose.configs_dir()), subcommand, version_base=compose.VERSION_BASE)(start)
    try:
        with _as_hydras(argv), option_loader.in_hydras_place():
            app()
    except SystemExit as stop:  # Hydra's own end: of `--help`, or of what it cannot show
        return 2 if stop.code else 0
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(error_messages.composition(error, Origins())) from error
    if jobs > 1:
        from hybridflow.cli import sweep_table

        sweep_table.show(done)
    failed = [number for number, job in enumerate(done) if job.status]
    if failed and jobs > 1:
        terminal.complain(f"hybridflow: {len(failed)} of {jobs} jobs failed: {', '.join(map(str, failed))}")
        return 1
    return max((job.status for job in done), default=0)


@contextmanager
def _as_hydras(argv: Sequence[str]) -> Iterator[None]:
    """Set the process's arguments, and make Hydra let out what it catches: it would print a traceback."""
    own_argv = sys.argv
    full = os.environ.get(FULL_ERROR)
    sys.argv = ["hybridflow", *free_keys.added(escapes.meant(argv))]
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        sys.argv = own_argv
        del os.environ[FULL_ERROR]
        os.environ |= {} if full is None else {FULL_ERROR: full}


def job_name(name: str, number: int) -> str:
    """Return the `run.name` of a job of a sweep: its run folder is inside that of the sweep's name."""
    return f"{name}/{number}"


def _job_config(tree: DictConfig, jobs: int) -> Config:
    """Return the settings of this job. A job of a sweep gets a run folder of its own, inside that of its run's name."""
    config = cast(Config, OmegaConf.to_object(tree))
    own = HydraConfig.get()
    if own.mode == RunMode.MULTIRUN:
        config.run.name = job_name(config.run.name, own.job.num)
        number = own.job.num
        given = " ".join(override.lstrip("+") for override in own.overrides.task)
        terminal.say(one_line(f"job {number} ({number + 1} of {jobs}): {given}"))
    return config


def _run(config: Config) -> int:
    """Run one job. An error for the user is one line, any other a traceback; both leave the cause as the last line."""
    from hybridflow.trainer import way_on

    try:
        with logs.remembered(), logs.with_its_end(), way_on.told(config):
            with before_the_start():
                from hybridflow.trainer.run import run

            return run(config)
    except UnexpectedError as error:
        return error_report.tell(error.__cause__ or error, "hybridflow")
    except HybridFlowError as error:
        terminal.complain(f"hybridflow: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        raise
    except BaseException:  # a plugin's SystemExit is no success, and torch has errors that are no Exception
        terminal.complain(traceback.format_exc().rstrip())
        return 1
