"""The `hybridflow` command. Subcommands that train are `launch`ed; each other one is a module, imported when called."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from hybridflow import __version__, interrupt
from hybridflow.cli import closed_streams, error_report
from hybridflow.cli.completion import HYDRAS
from hybridflow.errors import ConfigError, Stopped
from hybridflow.observe import logs, terminal

SUBCOMMANDS = {
    "train": "reinforcement learning: hybridflow train experiment=NAME [key=value ...]",
    "sft": "supervised training: hybridflow sft experiment=NAME [key=value ...]",
    "train-reward": "training of a reward model: hybridflow train-reward experiment=NAME [key=value ...]",
    "train-cost": "training of a cost model: hybridflow train-cost experiment=NAME [key=value ...]",
    "rlhf": "several of these as stages: hybridflow rlhf [-cn NAME] [[STAGE.]key=value ...]",
    "plan": "what a run takes, before it starts: hybridflow plan experiment=NAME [hardware=NAME] [key=value ...]",
    "map": "the fastest placement of a run, by search: hybridflow map [hardware=NAME] [key=value ...] [--out FILE]",
    "watch": "the live view of a run, while it goes on and after it: hybridflow watch RUN",
    "evaluate": "answers of a model to held-out questions: hybridflow evaluate MODEL [MODEL] [key=value ...]",
    "report": "runs as one HTML file that a browser shows: hybridflow report RUN [RUN ...] [--out FILE]",
    "export": "the model of a run as a Hugging Face folder: hybridflow export RUN[:STEP] --out FOLDER",
    "algorithms": "the algorithms, their papers, roles and components: hybridflow algorithms [MODULE ...]",
    "settings": "every setting, its default and its meaning: hybridflow settings [KEY ...]",
    "data": "look at a file of rows or a task: hybridflow data PATH|TASK [MODEL] [key=value ...]",
    "profile": "measure this machine for plans of placements: hybridflow profile [--out FILE]",
    "doctor": "what would keep a run from starting here, and what to do: hybridflow doctor [--start] [--json]",
    "check": "try what modules of yours register: hybridflow check [-cd FOLDER] MODULE ... [key=value ...]",
    "model": "make a model folder: hybridflow model --help",
}
RARELY = 100_000, 10, 10  # an import of torch makes more objects than that; it leaves hardly any garbage
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status.

    0; 1: a run failed, or SIGTERM ended it; 2: the command or the settings are wrong; 75: SIGTERM ended a run that has
    a checkpoint; 130: Ctrl-C.

    Args:
        argv: None: those of this process, which is expected to end with the command, with that status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        gc.set_threshold(*RARELY)
    closed_streams.outlive_readers()
    with interrupt.heeded():
        try:
            with interrupt.through_ray():
                _refuse_nowhere()
                logs.show()
                status = _dispatch(arguments)
        except BaseException as error:  # what a plugin raises may be any, SystemExit too
            with interrupt.shielded():
                status = _tell(error, arguments)
        if argv is None:  # the process ends with the command
            atexit.register(interrupt.ignore)
            interrupt.end_with(status)
    return status


def _tell(error: BaseException, arguments: Sequence[str]) -> int:
    """Say why a command has ended; return the exit status."""
    if isinstance(error, Stopped):
        terminal.complain(f"hybridflow: {error}")
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        terminal.complain("hybridflow: interrupted")
        return INTERRUPTED
    return error_report.tell(error, " ".join(["hybridflow", *arguments[:1]]))


def _refuse_nowhere() -> None:
    """Raise ConfigError if the working directory has been removed: no relative path can be followed from it."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise ConfigError("the working directory is no longer there; cd to one that is") from error


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        (terminal.say if arguments else terminal.complain)(_usage())
        return 0 if arguments else 2
    first = arguments[0]
    rest = arguments[1:]
    if first == "--version":
        terminal.say(f"hybridflow {__version__}")
        return 0
    if first in ("-sc", "--shell-completion"):
        return _complete(arguments)
    if first not in SUBCOMMANDS:
        near = get_close_matches(first, SUBCOMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        terminal.complain(f"hybridflow: no subcommand is named {first!r}{hint}\n\n{_usage()}")
        return 2
    if first in HYDRAS:
        from hybridflow.cli.launch import launch

        return launch(first, rest)
    return int(import_module(f"hybridflow.cli.{first}").run(rest))


def _complete(arguments: list[str]) -> int:
    from hybridflow.cli import completion
    from hybridflow.cli.hydra_application import hand_over

    return completion.run(arguments, list(SUBCOMMANDS), hand_over)


def _usage() -> str:
    rows = [f"  {name:<14}{text}" for name, text in SUBCOMMANDS.items()]
    return "\n".join(
        [
            "usage: hybridflow SUBCOMMAND ...",
            "",
            *rows,
            "",
            "  hybridflow SUBCOMMAND --help    its groups, options and settings",
            "  hybridflow --version            the version",
            '  eval "$(hybridflow -sc install=bash)"    completion in this shell (also fish; zsh takes bash\'s)',
        ]
    )
