"""Saving a running experiment and bringing a freshly built one to where a saved one was."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from hybridflow.config.compose import resolved_yaml
from hybridflow.config.schema import Config
from hybridflow.errors import HybridFlowError, shown
from hybridflow.json_file import read_object
from hybridflow.observe.disk_errors import writing
from hybridflow.observe.run_folder import RunFolder
from hybridflow.roles import TrainedRole
from hybridflow.trainer.build import Running
from hybridflow.trainer.checkpoint_store import CheckpointError, Checkpoints
from hybridflow.trainer.progress import Learning, Progress
from hybridflow.trainer.resume import CONFIG, versions

STATE = "trainer.json"


def save(config: Config, running: Running, folder: RunFolder, progress: Progress) -> float:
    """Save after a step; the seconds that it took. Raises RoleError if a role fails; then nothing was committed.

    The ranks and this process must see one file system.
    """
    start = perf_counter()
    checkpoints = Checkpoints(folder.checkpoints)
    with writing(folder.checkpoints):
        path = checkpoints.begin(progress.steps)
        try:
            _write(config, running, folder, progress, path)
            checkpoints.commit(progress.steps, versions())
        except BaseException:
            checkpoints.abandon(progress.steps)
            raise
        checkpoints.keep(config.trainer.keep_last, best=progress.best_steps)
    return perf_counter() - start


def _write(config: Config, running: Running, folder: RunFolder, progress: Progress, path: Path) -> None:
    """Everything of a checkpoint into its folder."""
    for role in trained(running):
        running.groups[role].save_checkpoint(str(path / role))
    running.supervisor.wait_all()  # until all have written
    best = None if progress.best_steps is None else progress.best  # JSON has no NaN
    state = asdict(progress) | {"best": best} | {"algorithm": running.algorithm.state(), "files": folder.sizes()}
    (path / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    (path / CONFIG).write_text(resolved_yaml(config), encoding="utf-8")


def load(running: Running, path: Path) -> Progress:
    """Bring the roles and the algorithm to where they were; what had been measured by then.

    Raises HybridFlowError if a role is not in the checkpoint.
    """
    for role in trained(running):
        if not (path / role).is_dir():
            raise HybridFlowError(f"trainer.resume: {path} has no {role}; it is of a run whose algorithm had none")
        running.groups[role].load_checkpoint(str(path / role))
    running.supervisor.wait_all()
    state = _read(path)
    running.algorithm.restore(state["algorithm"])
    accuracy = {int(steps): value for steps, value in state["accuracy"].items()}
    mean_grade = {int(steps): value for steps, value in state.get("mean_grade", {}).items()}
    learning = {role: Learning(**learning_state) for role, learning_state in state.get("learning", {}).items()}
    best = state.get("best")
    return Progress(
        state["steps"],
        state["seconds"],
        accuracy,
        state["draws"],
        mean_grade,
        learning,
        state.get("best_steps"),
        math.nan if best is None else best,
        rows_fingerprint(path),
    )


def sizes(path: Path) -> dict[str, int]:
    """Read the sizes that the run folder's growing files had, see `RunFolder.sizes`."""
    files = _read(path).get("files")
    if not isinstance(files, dict) or not all(isinstance(size, int) for size in files.values()):
        raise CheckpointError(f"{path / STATE}: files = {shown(files)}: sizes of files were expected")
    return files


def rows_fingerprint(path: Path) -> str:
    """Read the fingerprint of the rows that the run learned from; "" if none is known."""
    return str(_read(path).get("rows_fingerprint", ""))


def trained(running: Running) -> list[str]:
    """List the roles that have something to save."""
    return [role for role, group in running.groups.items() if issubclass(group.interface, TrainedRole)]


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object(path / STATE)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
