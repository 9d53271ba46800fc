"""Saving a running experiment and bringing a freshly built one to where a saved one was."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridflow.algorithms import Algorithm
from hybridflow.algorithms.schedule import schedules
from hybridflow.config.compose import resolved_yaml
from hybridflow.config.model_roles import section, with_models
from hybridflow.config.schema import Config
from hybridflow.errors import HybridFlowError, shown
from hybridflow.models import Head, read_shape, table
from hybridflow.observe.disk_errors import DiskError, writing
from hybridflow.observe.run_folder import RunFolder
from hybridflow.roles import TrainedRole
from hybridflow.trainer import saved_state
from hybridflow.trainer.checkpoint_store import CheckpointError, Checkpoints
from hybridflow.trainer.progress import Progress
from hybridflow.trainer.resume import CONFIG, versions
from hybridflow.trainer.saved_state import STATE, SavedState

if TYPE_CHECKING:
    from hybridflow.trainer.build import Running


def save(config: Config, running: Running, folder: RunFolder, progress: Progress) -> None:
    """Save after a step.

    The ranks and this process must see one file system.

    Raises DiskError if there is no room, before any rank begins where that can be told; RoleError if a role fails.
    """
    checkpoints = Checkpoints(folder.checkpoints)
    refuse_without_room(folder, sum(saved_bytes(config, role) for role in with_models(config, trained(running))))
    with writing(folder.checkpoints):
        path = checkpoints.begin(progress.steps)
        try:
            _write(config, running, folder, progress, path)
            checkpoints.commit(progress.steps, versions())
        except BaseException:
            checkpoints.abandon(progress.steps)
            raise
        checkpoints.keep(config.trainer.keep_last, best=progress.best_steps)


def refuse_without_room(folder: RunFolder, size: int) -> None:
    """Raise DiskError if the disk has no room for a checkpoint of that size: ranks that fail on it end the run."""
    free = shutil.disk_usage(folder.path).free
    if free < size:
        raise DiskError(
            f"No space left on device: {folder.checkpoints}: a checkpoint takes {size / 2**20:.0f} MiB, and "
            f"{free / 2**20:.0f} MiB are free. trainer.keep_last says how many are kept"
        )


def saved_bytes(config: Config, role: str) -> int:
    """Return the bytes of a role's tensors in a checkpoint: master weights and two moments, in float32."""
    head = Head.lm if role == "actor" else Head.reward
    weights = table(read_shape(section(config, role).model.path), head=head)
    return sum(12 * prod(weight.shape) for weight in weights if not weight.is_tied_copy)


def _write(config: Config, running: Running, folder: RunFolder, progress: Progress, path: Path) -> None:
    """Everything of a checkpoint into its folder."""
    calls = [running.groups[role].save_checkpoint(str(path / role)) for role in trained(running)]
    running.supervisor.wait_all()  # until all have written, or given up
    given = [report.value for call in calls for report in call.metadata()]
    if full := [value for value in given if isinstance(value, DiskError)]:
        raise full[0]
    state = SavedState(progress, running.algorithm.state(), folder.sizes())
    with writing(path / STATE):
        (path / STATE).write_text(json.dumps(state.to_json(), indent=1), encoding="utf-8")
    with writing(path / CONFIG):
        (path / CONFIG).write_text(resolved_yaml(config), encoding="utf-8")


def load(running: Running, path: Path) -> Progress:
    """Bring the roles and the algorithm to where they were; what had been measured by then.

    Raises CheckpointError if a role is not in the checkpoint.
    """
    check_roles(path, trained(running))
    for role in trained(running):
        running.groups[role].load_checkpoint(str(path / role))
    running.supervisor.wait_all()
    state = saved_state.read(path)
    _restore(running.algorithm, state.algorithm, path)
    return state.progress


def check_roles(path: Path, learning: Iterable[str]) -> None:
    """Raise CheckpointError if a role that learns is not in the checkpoint."""
    for role in learning:
        if not (path / role).is_dir():
            raise CheckpointError(f"trainer.resume: {path} has no {role}; it is of a run whose algorithm had none")


def check_schedule(path: Path, config: Config) -> None:
    """Raise CheckpointError if the run's schedule cannot go on from what the checkpoint's had under way."""
    state = saved_state.read(path).progress.schedule
    if problem := schedules.get(config.trainer.schedule).state_problem(state, config.algorithm):
        raise CheckpointError(f"trainer.resume: {path}: {problem}")


def _restore(algorithm: Algorithm, state: dict[str, Any], path: Path) -> None:
    """Give an algorithm its state. Raises CheckpointError if it cannot take it."""
    try:
        algorithm.restore(state)
    except HybridFlowError:
        raise
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise CheckpointError(
            f"{path / STATE}: algorithm = {shown(state)}: {type(algorithm).__name__}.restore cannot take it: "
            f"{type(error).__name__}: {error} ({at.filename}:{at.lineno})"
        ) from error


def sizes(path: Path) -> dict[str, int]:
    """Read the sizes that the run folder's growing files had, see `RunFolder.sizes`."""
    return saved_state.read(path).files


def rows_fingerprint(path: Path) -> str:
    """Read the fingerprint of the rows that the run learned from; "" if none is known."""
    return saved_state.read(path).progress.rows_fingerprint


def trained(running: Running) -> list[str]:
    """List the roles that have something to save."""
    return [role for role, group in running.groups.items() if issubclass(group.interface, TrainedRole)]
