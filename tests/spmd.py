"""Ranks for tests: real processes on gloo (or NCCL), started at their first call and shared by the tests of a size."""

from __future__ import annotations

import faulthandler
import multiprocessing as mp
import os
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

from hybridflow.parallel import host_address

# A rank that fails leaves its neighbors in a collective; they get this long to fail as well before all are ended.
GRACE_S = 5.0


def lacking(world: int, gpus: int) -> str | None:
    """Why so many ranks cannot run here: on NCCL each has a GPU of its own. Without any GPU there is gloo."""
    return f"needs {world} GPUs, there are {gpus}" if 0 < gpus < world else None


def shown(rank: int, gpus: int, visible: str | None) -> dict[str, str]:
    """What a rank's environment says of GPUs: one that is its own, as Ray does it; nothing where there is none.

    Args:
        visible: CUDA_VISIBLE_DEVICES of the tests.
    """
    if not gpus:
        return {}
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    return {"CUDA_VISIBLE_DEVICES": names[rank]}


class Ranks:
    """`world` processes in one torch.distributed world; each call runs a function on all of them at once.

    What a function keeps in its module stays for later calls. After a call in which a rank died or did not come back
    in time all ranks are ended, and the next call starts new ones: such a failure never spreads to another test.
    """

    _known: ClassVar[weakref.WeakSet[Ranks]] = weakref.WeakSet()

    def __init__(self, world: int) -> None:
        self._known.add(self)
        self.world = world
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def run(self, function: Callable[..., Any], *args: Any, timeout_s: float = 180, **kwargs: Any) -> list[Any]:
        """`function(*args, **kwargs)` on every rank; what each gave. The function is one of an importable module.

        Raises AssertionError with the first traceback of a rank, or saying which rank died or gave no answer in time.
        """
        if not self._processes:
            self._start()
        for pipe in self._pipes:
            pipe.send((function, args, kwargs, timeout_s))
        return self._collect(f"{function.__module__}.{function.__qualname__}", timeout_s)

    @classmethod
    def stop_all(cls) -> None:
        """End the processes of all; the next call of each starts new ones."""
        for ranks in cls._known:
            ranks.stop()

    def stop(self) -> None:
        """End the processes."""
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.kill()
            process.join()
            pipe.close()
        self._processes, self._pipes = [], []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self) -> None:
        import torch

        gpus = torch.cuda.device_count()
        context = _method(gpus)
        self._folder = tempfile.TemporaryDirectory(prefix="hybridflow-ranks-")
        store = str(Path(self._folder.name) / "store")
        for rank in range(self.world):
            mine, theirs = context.Pipe()
            own = shown(rank, gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
            process = context.Process(target=_serve, args=(rank, self.world, store, theirs, own), daemon=True)
            process.start()
            theirs.close()  # so that the end of the process ends the pipe
            self._pipes.append(mine)
            self._processes.append(process)

    def _collect(self, name: str, timeout_s: float) -> list[Any]:
        answers: dict[int, Any] = {}
        first: str | None = None
        deadline = time.monotonic() + timeout_s
        while len(answers) < self.world:
            waiting = {pipe: rank for rank, pipe in enumerate(self._pipes) if rank not in answers}
            ready = wait(list(waiting), max(deadline - time.monotonic(), 0.0))
            if not ready:
                self.stop()
                late = ", ".join(map(str, sorted(waiting.values())))
                raise AssertionError(first or f"{name}: no answer from rank {late} in {timeout_s:g} s")
            for pipe in ready:
                rank = waiting[pipe]  # type: ignore[index]
                error, answers[rank] = self._answer(rank, name)
                if error and first is None:
                    first, deadline = error, min(deadline, time.monotonic() + GRACE_S)
        assert first is None, first
        return [answers[rank] for rank in range(self.world)]

    def _answer(self, rank: int, name: str) -> tuple[str | None, Any]:
        try:
            return self._pipes[rank].recv()
        except (EOFError, ConnectionError):
            self._processes[rank].join()
            code = self._processes[rank].exitcode
            self.stop()
            raise AssertionError(f"{name}: rank {rank} died with exit code {code}") from None


def _method(gpus: int) -> SpawnContext | ForkServerContext:
    """How ranks start: anew beside GPUs, else forked from a process that has imported the engines once for all."""
    if gpus:
        return mp.get_context("spawn")
    forked = mp.get_context("forkserver")
    forked.set_forkserver_preload(["tests.preloaded"])
    return forked


def _serve(rank: int, world: int, store: str, pipe: Connection, own: dict[str, str]) -> None:
    os.environ.update(
        own,
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world), OMP_NUM_THREADS="1",
        MASTER_ADDR=host_address.LOOPBACK, TMPDIR=str(Path(store).parent), **host_address.ONE_MACHINE,
    )  # fmt: skip
    tempfile.tempdir = None  # found anew: ranks are killed, and their temporary files go with the folder
    import torch
    import torch.distributed as dist

    from hybridflow.parallel import process_groups
    from hybridflow.parallel.platform import platform

    # Each group is a meeting, threads and sockets, and stays: all that is made later has a layout's groups in common.
    process_groups.make_groups = cache(process_groups.make_groups)
    platform().start(rank)
    torch.manual_seed(0)
    dist.init_process_group(
        platform().backend,
        store=dist.FileStore(store, world),
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=120),
    )
    while True:
        try:
            function, args, kwargs, timeout_s = pipe.recv()
        except EOFError:  # the tests are over
            return
        faulthandler.dump_traceback_later(max(timeout_s - 1, 1))  # where a rank hangs, before it is ended
        try:
            answer = (None, function(*args, **kwargs))
        except Exception:
            answer = (f"rank {rank}: {traceback.format_exc()}", None)
        faulthandler.cancel_dump_traceback_later()
        pipe.send(answer)
