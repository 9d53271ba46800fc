"""Way on of a run that a signal has ended, or the loss of its cluster: what is saved, and the command that goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridflow import interrupt
from hybridflow.config.schema import Config
from hybridflow.errors import ClusterError, Stopped, counted
from hybridflow.observe.run_folder import RunFolder
from hybridflow.preflight.run_folder_checks import folder_of
from hybridflow.trainer.checkpoint_store import Checkpoints
from hybridflow.trainer.next_commands import resumed


@contextmanager
def told(config: Config) -> Iterator[None]:
    """Say of what ends the block, from before anything of the run is imported, how it goes on.

    A run that is to be resumed may be ended again before it has begun: it is worth calling again all the same.
    """
    try:
        with interrupt.through_ray():
            yield
    except Stopped as stop:
        with interrupt.shielded():
            words, some = _saved(config)
        raise Stopped(stop.number, f"{stop}: {words}", saved=some) from None
    except ClusterError as error:
        raise ClusterError(f"{error}: {_saved(config)[0]}") from error


def _saved(config: Config) -> tuple[str, bool]:
    folder = RunFolder(folder_of(config))
    own = _goes_on(config, folder) or folder.record().get("process") == os.getpid()
    newest = Checkpoints(folder.checkpoints).newest() if own else None
    if newest is None:
        return "nothing had been saved", False
    command = resumed(sys.orig_argv, config.trainer.resume)
    steps = int(newest.name.removeprefix("step-"))
    return f"{counted(steps, 'step')} saved, and this goes on from there: {command}", True


def _goes_on(config: Config, folder: RunFolder) -> bool:
    """Tell whether what is in a run's folder is its own from the start on."""
    wanted = config.trainer.resume
    if wanted in ("auto", "never"):
        return wanted == "auto"
    path = Path(wanted).absolute()
    return folder.path in (path, *path.parents)
