"""The store: rows in Ray's object store, and who knows about them.

A `StoredChunk` is what a `BatchRef` of the controller is made of. The object lives as long as any chunk names it, and
a chunk as long as any `BatchRef` names that.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np
import ray

from hybridflow.batch import Batch, BatchRef, Metadata
from hybridflow.batch.columns import kind_of
from hybridflow.batch.joining import concat

MARKS = ("group_id", "copy_id")
LOOK_EVERY_S = 10.0
NEARLY_FULL = 0.1  # is free


class StoredChunk:
    """Chunk in one object of the store."""

    def __init__(self, data: Any, metadata: Callable[[], Metadata]) -> None:
        self.data = data
        self._metadata = metadata

    def metadata(self) -> Metadata:
        """Return what is known of the rows; waits for the ranks. Raises RoleError if they failed."""
        return self._metadata()

    def get(self) -> Batch:
        """Return the rows. Raises RoleError if they were not made."""
        self.metadata()
        return Batch.from_wire(ray.get(self.data))


def put(batch: Batch, chunk_rows: int | None = None) -> BatchRef:
    """Put rows into the store. Integer columns `group_id` and `copy_id` become marks, which the controller knows.

    Args:
        chunk_rows: at most so many rows in one object; None: one object. Between machines whole objects travel, so
            smaller ones bring fewer rows that are not wanted there, at a cost for each.
    """
    return concat([_put(part) for part in batch.split(parts_of(len(batch), chunk_rows))])


def parts_of(rows: int, chunk_rows: int | None) -> int:
    """Return the number of chunks that rows are put in; see `put`."""
    return max(1, -(-rows // chunk_rows)) if chunk_rows else 1


def _put(batch: Batch) -> BatchRef:
    known = Metadata.of(batch)
    marks = {name: batch.dense(name).astype(np.int64) for name in MARKS if _is_mark(batch, name)}
    columns = [name for name in batch.columns if name not in marks]
    stored = BatchRef.from_chunk(StoredChunk(ray.put(batch.to_wire()), lambda: known), len(batch), columns)
    return stored.for_call(**marks)


def _is_mark(batch: Batch, name: str) -> bool:
    return name in batch and kind_of(batch[name]) == "int" and batch.dense(name).ndim == 1


class StoreWatch:
    """Looks at the store's fill, and tells once when it is nearly full: then rows go to the disk, which is slow.

    Args:
        measure: the bytes that are free, and those that there are.
    """

    def __init__(self, say: Callable[[str], None], measure: Callable[[], tuple[float, float]] | None = None) -> None:
        self._say = say
        self._measure = measure or _free_and_total
        self._looked_s = -LOOK_EVERY_S
        self._told = False

    def look(self) -> None:
        """Look once more, unless that was a moment ago: the cluster is asked."""
        if self._told or monotonic() < self._looked_s + LOOK_EVERY_S:
            return
        self._looked_s = monotonic()
        free, total = self._measure()
        if free < NEARLY_FULL * total:
            self._told = True
            self._say(
                f"warning: {free / 2**30:.2f} of the {total / 2**30:.2f} GiB of the object store are free; rows that "
                "do not fit go to the disk, and if that is full too, the run ends. Give a larger "
                "ray.object_store_gib, or a smaller algorithm.prompts_per_step"
            )


def _free_and_total() -> tuple[float, float]:
    name = "object_store_memory"
    total = ray.cluster_resources().get(name, 0.0)
    return ray.available_resources().get(name, 0.0 if total else 1.0), total
