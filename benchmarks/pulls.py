"""How many bytes move so that a rank has its rows? Copies out of the store, and whole objects between machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster

from benchmarks import dispatch_roles
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.controller import ResourcePool, Supervisor, cluster, put
from hybridflow.parallel.layout import Layout

ROWS, LONGEST = 768, 16_384  # so that 16 rows are far more than what Ray sends inside of a message
CHUNK_ROWS = (None, 128, 32, 8)


def on_one_node() -> dict[str, float]:
    """Amplification, by which rows are wanted: uneven parts in order, few, half of them or all permuted."""
    with cluster(slots=5), _groups() as (maker, reader):
        return {name: _amplification(maker, reader, rows) for name, rows in _wanted().items()}


def on_two_nodes() -> dict[str, dict[str, float]]:
    """Time the same with maker and reader on different nodes, by the rows of a chunk."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=3)
        found = {}
        with cluster(nodes.address):
            for chunk_rows in CHUNK_ROWS:
                with _groups(chunk_rows) as (maker, reader):
                    for name, rows in _wanted().items():
                        found.setdefault(name, {})[str(chunk_rows)] = _amplification(maker, reader, rows)
        return found
    finally:
        nodes.shutdown()


def _wanted() -> dict[str, np.ndarray]:
    order = np.random.default_rng(0).permutation(ROWS)
    return {
        "uneven": np.arange(5, ROWS),
        "a_tenth": np.arange(ROWS // 10),
        "half_permuted": order[: ROWS // 2],
        "permuted": order,
    }


@contextmanager
def _groups(chunk_rows: int | None = None) -> Iterator[tuple[Any, Any]]:
    """Start two that make rows and three that read them; where nodes have 2 and 3 slots, on each one."""
    supervisor, plugins = Supervisor(), [dispatch_roles.__name__]
    reading = ResourcePool("reading", 3, supervisor, plugins=plugins)  # first: it fits on one node only
    making = ResourcePool("making", 2, supervisor, plugins=plugins)
    try:
        yield (
            making.start_role("bench", Layout(data=2), chunk_rows=chunk_rows),
            reading.start_role("counting_bench", Layout(data=3)),
        )
    finally:
        reading.close()
        making.close()


def _amplification(maker: Any, reader: Any, wanted: np.ndarray) -> float:
    """(bytes copied into ranks + bytes that crossed nodes) / bytes of the rows that were wanted."""
    draw = np.random.default_rng(1)
    rows = Batch(y=Ragged.of([np.zeros(n, np.float32) for n in draw.integers(1, LONGEST, ROWS)]))
    needed = sum(part.nbytes for part in rows.select(wanted).split(3))
    made = maker.add(put(Batch(x=rows.ragged("y"))))
    made.metadata()
    reader.copied().get()
    reader.add_again(made.select(wanted)).metadata()
    return round((sum(reader.copied().get()) + _crossed(made)) / needed, 4)


def _crossed(rows: BatchRef) -> int:
    """Bytes of objects that are on more nodes than the one where they were made."""
    objects = [chunk.data for source in rows.sources for chunk in source.chunks]
    where = ray.experimental.get_object_locations(objects)
    return sum(found["object_size"] * (len(set(found["node_ids"])) - 1) for found in where.values())
