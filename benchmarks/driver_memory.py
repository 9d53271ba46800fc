"""Plugin with a metric sink that writes down, step by step, what a run's driver holds on to.

`driver_memory.jsonl` of the run folder has a line a step: the driver's own memory, in use and free in malloc's
heaps, the objects that its garbage collector knows, the bytes of rows in the store, and those of the run folder.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Mapping
from pathlib import Path

from benchmarks.own_bytes import free_bytes, own_bytes
from hybridflow.controller import object_store
from hybridflow.observe.sinks import MetricSink, metric_sinks

FILE = "driver_memory.jsonl"


@metric_sinks.register("driver_memory")
class DriverMemory(MetricSink):
    """Measures between two steps, when no call is under way."""

    in_step = True

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        if any(name.startswith("validation/") for name in metrics):
            return
        gc.collect()
        store = object_store._measured()
        line = {
            "step": step,
            "own": own_bytes() - free_bytes(),
            "free": free_bytes(),
            "objects": len(gc.get_objects()),
            "store": store.total - store.free if store else 0.0,
            "folder": folder_bytes(self.context.folder.path),
        }
        with (self.context.folder.path / FILE).open("a") as stream:
            stream.write(json.dumps(line) + "\n")


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder but those of this sink and of the measurement of ranks."""
    files = (Path(where) / name for where, _, names in os.walk(folder) for name in names)
    return sum(file.stat().st_size for file in files if file.name != FILE and file.parent.name != "tensor_bytes")
