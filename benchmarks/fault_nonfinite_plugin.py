"""Plugin that puts a NaN into gradients of the actor on one rank, and puts down what each rank's weights are.

HYBRIDFLOW_NONFINITE says which, as `RANK:FIRST:LAST`: in the updates of these numbers, from 0. HYBRIDFLOW_FAULT_MARK
names a file; with `.0` at its end one is made at the first, that holds the time; with `.weights-RANK` one of the hash
of the rank's weights at the last save.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.fault_plugin import MARK
from benchmarks.worker_hooks import change_worker, nan_gradient

NONFINITE = "HYBRIDFLOW_NONFINITE"


def _hook(worker: Any, rank: int) -> None:
    """Let the actor's worker learn from a NaN, and put down its weights whenever it saves."""
    mark = os.environ[MARK]
    wanted, first, last = map(int, os.environ[NONFINITE].split(":"))
    learn, save = worker.learn, worker.save_checkpoint
    updates = 0

    def poisoned(self: Any, *given: Any, **options: Any) -> bool:
        nonlocal updates
        updates += 1
        if rank != wanted or not first < updates <= last + 1:
            return bool(learn(self, *given, **options))
        Path(f"{mark}.0").write_text(str(time.time()))
        with nan_gradient(self.engine):
            return bool(learn(self, *given, **options))

    def saved(self: Any, folder: str) -> Any:
        whole = hashlib.sha256()
        for param in self.engine.model.parameters():
            whole.update(param.detach().cpu().numpy().tobytes())
        Path(f"{mark}.weights-{rank}").write_text(whole.hexdigest())
        return save(self, folder)

    worker.learn, worker.save_checkpoint = poisoned, saved


if NONFINITE in os.environ:
    change_worker("actor", _hook)
