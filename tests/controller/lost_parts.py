"""A program for tests: a cluster of several nodes on this machine loses one part after the other.

It prints what each loss led to, one JSON object a line. The cluster's head, and so this driver, has a slot, and each
other node too.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

from ray.cluster_utils import Cluster

from hybridflow.controller import ResourcePool, Supervisor, cluster
from hybridflow.controller.failure_policy import RaiseToRecover
from hybridflow.errors import ClusterError
from hybridflow.parallel.layout import Layout
from hybridflow.runtime.failure import RoleError
from tests.controller import rank_functions

SOON = {"health_check_period_ms": 300, "health_check_failure_threshold": 3, "health_check_initial_delay_ms": 0}
HERE = {"num_cpus": 1, "node_ip_address": "127.0.0.1"}


class Parts:
    """The cluster, and a pool over two of its three nodes."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={**HERE, "_system_config": SOON})
        for _ in range(2):
            self.add_node()

    def start_pool(self) -> None:
        self.supervisor = Supervisor(RaiseToRecover())
        self.pool = ResourcePool("stage", 2, self.supervisor, nodes=2, plugins=[rank_functions.__name__])
        self.vandal = self.pool.start_role("vandal", Layout(data=2))
        self.scribe = self.pool.start_role("scribe", Layout(data=2))

    def add_node(self) -> None:
        self.cluster.add_node(**HERE)

    def away(self) -> int:
        """A rank that is on another node than this driver."""
        head = self.cluster.head_node.node_id
        return next(rank for rank, place in enumerate(self.pool.places) if place.node != head)

    def node_of(self, rank: int) -> Any:
        return next(node for node in self.cluster.worker_nodes if node.node_id == self.pool.places[rank].node)

    def remove_node_of(self, rank: int) -> None:
        self.cluster.remove_node(self.node_of(rank), allow_graceful=False)

    def restart(self) -> None:
        self.supervisor.quiesce(self.pool, 5.0)
        self.supervisor.resume()
        self.pool.restart()


def stop_the_one_away(parts: Parts) -> dict[str, Any]:
    """The rank here complains that the other was not there: who is blamed?"""
    rank = parts.away()
    try:
        parts.vandal.miss_a_meeting(rank=rank, how="stopped").get()
    except RoleError as error:
        parts.restart()
        return {"stopped": rank, "blamed": error.failure.rank, "told": error.failure.error}
    return {}


def remove_a_node(parts: Parts) -> dict[str, Any]:
    """There is a third one with a free slot."""
    rank = parts.away()
    node = parts.pool.places[rank].node
    at: list[float] = []
    threading.Timer(1.0, lambda: (at.append(time.monotonic()), parts.remove_node_of(rank))).start()
    try:
        parts.vandal.die(rank=-1, peers_raise=False).get()
    except RoleError as error:
        detect_s = time.monotonic() - at[0]
        parts.restart()
        told = error.failure.error
        elsewhere = all(place.node != node for place in parts.pool.places)
        return {"detect_s": detect_s, "blamed": error.failure.rank == rank, "told": told, "elsewhere": elsewhere}
    return {}


def remove_one_more(parts: Parts) -> dict[str, Any]:
    """There is no free slot any more: a clear end; and then a node joins."""
    parts.remove_node_of(parts.away())
    try:
        parts.vandal.die(rank=-1, peers_raise=False).get()
    except RoleError:
        parts.supervisor.quiesce(parts.pool, 5.0)
    parts.supervisor.resume()
    slots = parts.pool._reserved
    patience, slots._within_s = slots._within_s, 1.0
    lost = parts.pool._processes.lost_nodes() if parts.pool._processes is not None else {}
    try:
        slots.replace_lost(lost)
    except ClusterError as error:
        missing = str(error)
    slots._within_s = patience
    parts.add_node()
    parts.pool.restart()
    parts.scribe.nap(seconds=0.0)
    return {"missing": missing, "nodes": len({place.node for place in parts.pool.places})}


def kill_the_head(parts: Parts) -> dict[str, Any]:
    """For good: there is no Redis."""
    gcs = parts.cluster.head_node.all_processes["gcs_server"][0].process.pid
    os.kill(gcs, signal.SIGKILL)
    begin = time.monotonic()
    calls = 0
    try:
        while True:
            parts.scribe.nap(seconds=0.2)
            calls += 1
    except ClusterError as error:
        return {"ended_s": time.monotonic() - begin, "told": str(error), "calls": calls}


def main() -> None:
    parts = Parts()
    with cluster(parts.cluster.address):
        parts.start_pool()
        for act in (stop_the_one_away, remove_a_node, remove_one_more, kill_the_head):
            print(json.dumps({"act": act.__name__, **act(parts)}), flush=True)
        begin = time.monotonic()
        parts.pool.close()
    print(json.dumps({"act": "leave", "seconds": time.monotonic() - begin}), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # what Ray has left of the cluster ends with its reaper
