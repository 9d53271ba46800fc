"""Ranks for tests: real processes on gloo (or NCCL), started once a session and shared by the tests of a size."""

from __future__ import annotations

import multiprocessing as mp
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any


class Ranks:
    """`world` processes in one torch.distributed world; each call runs a function on all of them at once."""

    def __init__(self, world: int) -> None:
        context = mp.get_context("spawn")
        store = tempfile.mktemp(prefix="hybridflow-store-")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(world):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, world, store, theirs), daemon=True)
            process.start()
            self._pipes.append(mine)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """`function(*args, **kwargs)` on every rank; what each gave. Raises AssertionError with a rank's traceback."""
        for pipe in self._pipes:
            pipe.send((function, args, kwargs))
        results = [pipe.recv() for pipe in self._pipes]
        failed = [error for error, _ in results if error]
        assert not failed, failed[0]
        return [value for _, value in results]

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _serve(rank: int, world: int, store: str, pipe: Connection) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world), OMP_NUM_THREADS="1",
        GLOO_SOCKET_IFNAME="lo", MASTER_ADDR="127.0.0.1",
    )  # fmt: skip
    import torch
    import torch.distributed as dist

    from hybridflow.parallel.platform import platform

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
        function, args, kwargs = pipe.recv()
        try:
            pipe.send((None, function(*args, **kwargs)))
        except Exception:
            pipe.send((f"rank {rank}: {traceback.format_exc()}", None))
