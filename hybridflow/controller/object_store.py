"""The store: rows in Ray's object store, and who knows about them.

A `StoredChunk` is what a `BatchRef` of the controller is made of. The object lives as long as any chunk names it, and
a chunk as long as any `BatchRef` names that.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

import grpc
import numpy as np
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated.node_manager_pb2 import GetNodeStatsReply

from hybridflow.batch import Batch, BatchRef, Metadata
from hybridflow.batch.columns import kind_of
from hybridflow.batch.joining import concat
from hybridflow.batch.row_source import LocalChunk, stay_here
from hybridflow.controller import ray_services
from hybridflow.errors import HybridFlowError

MARKS = ("group_id", "copy_id")
LOOK_EVERY_S = 10.0
ANSWER_S = 1.0
NEARLY_FULL = 0.1  # is free


class StoredChunk:
    """Chunk in one object of the store.

    Args:
        fetch: brings the object here.
    """

    def __init__(self, data: Any, metadata: Callable[[], Metadata], fetch: Callable[[Any], Any] = ray.get) -> None:
        self.data = data
        self._metadata = metadata
        self._fetch = fetch

    def metadata(self) -> Metadata:
        """Return what is known of the rows; waits for the ranks. Raises RoleError if they failed."""
        return self._metadata()

    def get(self) -> Batch:
        """Return the rows. Raises RoleError if they were not made, or are lost with the node that they were on."""
        self.metadata()
        return Batch.from_wire(self._fetch(self.data))


def put(batch: Batch, chunk_rows: int | None = None) -> BatchRef:
    """Put rows into the store. Integer columns `group_id` and `copy_id` become marks, which the controller knows.

    Args:
        chunk_rows: at most so many rows in one object; None: one object. Between machines whole objects travel, so
            smaller ones bring fewer rows that are not wanted there, at a cost for each.

    Raises HybridFlowError if there is no cluster; Ray would start one, or wait for one that is gone.
    """
    if not (stay_here() or ray.is_initialized()):
        raise HybridFlowError("rows are put into the store of a cluster, and none was started here")
    return concat([_put(part) for part in batch.split(parts_of(len(batch), chunk_rows))])


def parts_of(rows: int, chunk_rows: int | None) -> int:
    """Return the number of chunks that rows are put in; see `put`."""
    return max(1, -(-rows // chunk_rows)) if chunk_rows else 1


def _put(batch: Batch) -> BatchRef:
    marks = {name: batch.dense(name).astype(np.int64) for name in MARKS if _is_mark(batch, name)}
    columns = [name for name in batch.columns if name not in marks]
    chunk = LocalChunk(batch) if stay_here() else _stored(batch)
    return BatchRef.from_chunk(chunk, len(batch), columns).for_call(**marks)


def _stored(batch: Batch) -> StoredChunk:
    ray_services.raise_if_lost()  # Ray ends this process, and says nothing, if its node service is gone by now
    known = Metadata.of(batch)
    return StoredChunk(ray.put(batch.to_wire()), lambda: known)


def _is_mark(batch: Batch, name: str) -> bool:
    return name in batch and kind_of(batch[name]) == "int" and batch.dense(name).ndim == 1


class StoreState(NamedTuple):
    """Bytes of the store.

    Attributes:
        spilled: to the disk of this node, so far; 0 where nobody tells.
    """

    free: float
    total: float
    spilled: float = 0.0


class StoreWatch:
    """Looks at the store's fill, and tells once when it is nearly full: then rows go to the disk, which is slow.

    Between steps most rows are gone. So it looks for those too that have been on the disk.

    Args:
        measure: returns how things stand; None: nobody knows.
    """

    def __init__(self, say: Callable[[str], None], measure: Callable[[], StoreState | None] | None = None) -> None:
        self._say = say
        self._measure = measure or _measured
        self._looked_s = -LOOK_EVERY_S
        self._told = False

    def look(self) -> None:
        """Look once more, unless that was a moment ago: the cluster is asked."""
        if self._told or monotonic() < self._looked_s + LOOK_EVERY_S:
            return
        self._looked_s = monotonic()
        state = self._measure()
        if state is None or (state.free >= NEARLY_FULL * state.total and not state.spilled):
            return
        self._told = True
        what = f"{state.free / 2**30:.2f} of the {state.total / 2**30:.2f} GiB of the object store are free"
        if state.spilled:
            what += f", and {state.spilled / 2**30:.2f} GiB of rows that did not fit went to the disk by now"
        self._say(
            f"warning: {what}; rows that do not fit go to the disk, which is slow, and if that is full too, the run "
            "ends. Give a larger ray.object_store_gib, or a smaller algorithm.prompts_per_step"
        )


def _measured() -> StoreState | None:
    """Ask the cluster. Ray's own ways to do so would wait for ever where nobody answers."""
    name = "object_store_memory"
    if ray.util.client.ray.is_connected():
        return StoreState(ray.available_resources().get(name, 0.0), ray.cluster_resources().get(name, 0.0))
    try:
        usage = ray._private.worker.global_worker.gcs_client.get_all_resource_usage(timeout=ANSWER_S)
        spilled = _spilled()
    except (ray.exceptions.RayError, grpc.RpcError):
        return None
    nodes = usage.resource_usage_data.batch
    free = sum(node.resources_available.get(name, 0.0) for node in nodes)
    return StoreState(free, sum(node.resources_total.get(name, 0.0) for node in nodes), spilled)


def _spilled() -> float:
    """Return the bytes that a cluster of this process has written to its disk; 0 of one that was joined."""
    node = ray._private.worker._global_node
    if node is None or not node.head:
        return 0.0
    with init_grpc_channel(f"{node.node_ip_address}:{node.node_manager_port}") as channel:
        encoded = channel.unary_unary("/ray.rpc.NodeManagerService/GetNodeStats")(b"", timeout=ANSWER_S)
    return float(GetNodeStatsReply.FromString(encoded).store_stats.spilled_bytes_total)
