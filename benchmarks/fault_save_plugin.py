"""Plugin that lets the driver or a rank of a run fail at a certain point of a save, each fault once.

The environment says what happens. HYBRIDFLOW_SAVE_FAULT is a list, separated by commas, of `POINT:STEP:HOW`: at that
point of the save of that step. Points of the driver are those of `hook_driver`; of a rank they are `ROLE RANK WHAT`, as
`actor 1 tensors`, and `model RANK`, which is in step 0. HOW is one of

* a signal;
* `half-BYTES`: the kernel ends the process once a file that it writes becomes longer than that;
* `fill-BYTES`: the disk is full from then on, but for so many bytes, until the save has ended;
* the name of an error, as `ENOSPC`, which is raised.

HYBRIDFLOW_FAULT_MARK names a file; with the fault's number at its end one is made when it happens, that holds the time.
HYBRIDFLOW_SAVE_FILLER names the file that fills the disk.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.fault_plugin import MARK
from hybridflow.controller import Supervisor
from hybridflow.observe.run_folder import RunFolder
from hybridflow.runtime.rank import Rank
from hybridflow.trainer import checkpoint
from hybridflow.trainer.checkpoint_store import Checkpoints, Disk
from hybridflow.trainer.saved_state import SavedState

SAVE_FAULT = "HYBRIDFLOW_SAVE_FAULT"
FILLER = "HYBRIDFLOW_SAVE_FILLER"
BLOCK = 4096

FAULTS = [tuple(fault.split(":")) for fault in os.environ.get(SAVE_FAULT, "").split(",") if fault]
saving = 0  # the step that this process saves


def reach(point: str, path: Path | None = None) -> None:
    """Let the fault of this point happen, if there is one for the step that is saved."""
    for number, (wanted, step, how) in enumerate(FAULTS):
        if (wanted, int(step)) == (point, saving):
            with suppress(FileExistsError), open(f"{os.environ[MARK]}.{number}", "x") as mark:
                mark.write(str(time.time()))
                mark.flush()
                happen(how, path)


def happen(how: str, path: Path | None) -> None:
    """Do what a fault does."""
    name, _, size = how.partition("-")
    if name == "half":
        ctypes.CDLL(None).signal(signal.SIGXFSZ, None)  # Python ignores it; this is the kernel's own way
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))
    elif name == "fill":
        fill(Path(os.environ[FILLER]), int(size or 0))
    elif name in errno.errorcode.values():
        number = getattr(errno, name)
        raise OSError(number, os.strerror(number), None if path is None else str(path))
    else:
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(0.2)  # a signal is delivered soon, not at once


def fill(file: Path, left: int) -> None:
    """Fill the disk of a file with it, but for so many bytes."""
    with file.open("wb", buffering=0) as stream:
        for size in (256 * BLOCK, BLOCK):
            with suppress(OSError):
                while stream.write(bytes(size)):
                    pass
        os.ftruncate(stream.fileno(), max(0, stream.tell() - left))


def make_room() -> None:
    """Take away what fills the disk."""
    if FILLER in os.environ:
        Path(os.environ[FILLER]).unlink(missing_ok=True)


def before(owner: Any, name: str, point: Callable[..., str], place: int | None = None) -> None:
    """Let a function reach a point before it does anything.

    Args:
        point: its name, by the function's arguments; "": none.
        place: of the argument that is the path.
    """
    original = getattr(owner, name)

    def reached(*arguments: Any, **options: Any) -> Any:
        reach(point(*arguments), None if place is None else arguments[place])
        return original(*arguments, **options)

    setattr(owner, name, reached)


def hook_driver() -> None:
    """Let the driver reach the points of a save, in the order in which they come."""

    def begin(self: Checkpoints, step: int) -> Path:
        global saving
        saving = step
        return begun(self, step)

    def save(*arguments: Any) -> None:
        global saving
        try:
            saved(*arguments)
        finally:
            saving = 0
            make_room()

    begun, Checkpoints.begin = Checkpoints.begin, begin  # type: ignore[method-assign]
    saved, checkpoint.save = checkpoint.save, save
    before(Disk, "make", lambda *_: "folder", 1)
    before(Supervisor, "wait_all", lambda *_: "ranks write" if saving else "")
    before(SavedState, "to_json", lambda *_: "trainer.json")
    before(checkpoint, "resolved_yaml", lambda *_: "config.yaml")
    before(Disk, "flush", lambda *_: "first flush", 1)
    before(Disk, "write", lambda _, file, text: file.name, 1)
    before(Disk, "rename", lambda _, old, new: f"rename {new.name.partition('-')[0]}", 2)
    before(Checkpoints, "_name", lambda _, name, folder: f"name {name}")
    hook_removal()
    hook_metrics()


def hook_removal() -> None:
    """Let the driver reach `half of a removal` when half of the files are gone."""
    remove = Disk.remove

    def removed(self: Disk, folder: Path) -> None:
        global saving
        wanted = "half removed" if folder.name.startswith(".old") else "half swept"
        if any(point == wanted and (not saving or int(step) == saving) for point, step, _ in FAULTS):
            saving = saving or int(re.sub(r"\D", "", folder.name))
            files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
            for file in files[: len(files) // 2]:
                file.unlink()
            reach(wanted)
        remove(self, folder)

    Disk.remove = removed  # type: ignore[method-assign]


def hook_metrics() -> None:
    """Let the driver reach `metrics.jsonl` before the line of a step, which counts as the save after the step does."""
    log = RunFolder.log

    def logged(self: RunFolder, metrics: Any) -> None:
        global saving
        before_it, saving = saving, int(metrics["step"]) + 1
        make_room()
        reach("metrics.jsonl")
        log(self, metrics)
        saving = before_it
        make_room()

    RunFolder.log = logged  # type: ignore[method-assign]


def hook_rank() -> None:
    """Let a rank reach the points of a save, once it has imported an engine."""
    import torch.distributed as dist

    from hybridflow.engines.megatron import engine_checkpoint
    from hybridflow.engines.megatron.local_weights import LocalWeights

    role = ""

    def save(weights: Any, optimizer: Any, folder: Path, extra: Any) -> None:
        global saving
        nonlocal role
        saving, role = int(folder.parent.name.rpartition("-")[2]), folder.name
        try:
            saved(weights, optimizer, folder, extra)
        finally:
            saving = 0

    def on_all(what: str, folder: Path, work: Callable[[], None]) -> None:
        def reached() -> None:
            reach(point(what), folder)
            work()

        all_do(what, folder, reached)

    def point(what: str) -> str:
        return f"{role} {dist.get_rank()} {what}"

    saved, engine_checkpoint.save = engine_checkpoint.save, save
    all_do, engine_checkpoint._on_all = engine_checkpoint._on_all, on_all
    before(engine_checkpoint.DiskWriter, "write_data", lambda *_: point("tensors"))
    before(engine_checkpoint.DiskWriter, "finish", lambda *_: point("index"))
    before(json, "dumps", lambda *_: point("state"))
    before(LocalWeights, "_write_stage", lambda *_: f"model {dist.get_rank()}")


def hook_rollouts() -> None:
    """Let a rank reach `rank RANK rollouts` before it writes rows, which counts as the save after the step does."""
    from hybridflow.workers.reward import RewardWorker

    log = RewardWorker.log_rollouts

    def logged(self: RewardWorker, rollout: Any, *, step: int, folder: str) -> None:
        global saving
        saving = step + 1 if folder.endswith("rollouts") else 0
        reach(f"rank {self.context.rank} rollouts")
        saving = 0
        log(self, rollout, step=step, folder=folder)

    RewardWorker.log_rollouts = logged  # type: ignore[method-assign]


HOOKS = {"hybridflow.engines.megatron.engine_checkpoint": hook_rank, "hybridflow.workers.reward": hook_rollouts}


def _build(self: Rank, *arguments: Any) -> bytes:
    report = _built(self, *arguments)
    for module in [module for module in HOOKS if module in sys.modules]:  # what a role needs is imported by now
        HOOKS.pop(module)()
    return report


if FAULTS:
    hook_driver()
    _built = Rank.build
    Rank.build = _build  # type: ignore[method-assign]
