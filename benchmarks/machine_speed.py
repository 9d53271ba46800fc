"""How fast this machine is at the moment: its clock, and what else it does, may move that within minutes."""

from __future__ import annotations

import multiprocessing as mp
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from statistics import fmean
from time import perf_counter

SECONDS = 0.3
SIZE = 256  # of float32 matrices, which stay in a core's own cache


class MachineSpeed:
    """Processes, one a core, that measure at once: alone a core would be faster than beside others."""

    def __init__(self, workers: ProcessPoolExecutor, cores: int) -> None:
        self._workers = workers
        self._cores = cores

    @classmethod
    @contextmanager
    def measured(cls) -> Iterator[MachineSpeed]:
        """Keep the processes during the block."""
        cores = len(os.sched_getaffinity(0))
        with ProcessPoolExecutor(cores, mp_context=mp.get_context("spawn")) as workers:
            speed = cls(workers, cores)
            speed.now()  # they start, and warm up
            yield speed

    def now(self) -> float:
        """Return products of matrices a second and core."""
        return fmean(self._workers.map(_products_per_s, [SECONDS] * self._cores))


def _products_per_s(seconds: float) -> float:
    import numpy as np  # here: the number of its threads is read as it is imported, in a process of its own

    square = np.ones((SIZE, SIZE), np.float32)
    began, done = perf_counter(), 0
    while perf_counter() - began < seconds:
        square @ square
        done += 1
    return done / (perf_counter() - began)
