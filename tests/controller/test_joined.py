"""A cluster that is joined is left as it was found: running, its slots free, ready to be joined again. And what is lost
of it is noticed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked_ranks import command

pytestmark = pytest.mark.processes

PROGRAM = """
import threading
import time

import ray
from ray.cluster_utils import Cluster

from hybridflow.controller import ResourcePool, Supervisor, cluster
from hybridflow.errors import HybridFlowError

started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
with cluster(started.address):
    pool = ResourcePool("main", 1, Supervisor(), light=True)
    print(len(pool.ranks), "rank", flush=True)
    pool.close()
started.add_node(num_cpus=3)
with cluster(started.address):
    begin = time.monotonic()
    for sizes in ({"slots": 4, "together": 2}, {"slots": 4, "nodes": 2}, {"slots": 3, "nodes": 3}):
        try:
            ResourcePool("main", supervisor=Supervisor(), nodes_timeout_s=1.0, **sizes)
        except HybridFlowError as error:
            print(error)
    print("told after", time.monotonic() - begin)
    other = ray.util.placement_group([{"CPU": 1}] * 2, strategy="SPREAD")
    other.wait(30)
    threading.Timer(2.0, ray.util.remove_placement_group, [other]).start()
    pool = ResourcePool("main", 4, Supervisor(), nodes_timeout_s=1.0)
    nodes = [place.node for place in pool.places]
    print(len({*nodes}), "nodes,", sum(a != b for a, b in zip(nodes, nodes[1:])), "border", time.monotonic() - begin)
    pool.close()
started.shutdown()
"""
RAYS_PATIENCE_S = 16


def test_a_cluster_is_joined_twice_and_told_apart_from_what_it_can_never_hold(
    tmp_path: Path, light_forks: dict[str, str]
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    program = command(str(tmp_path / "program.py"), environment=light_forks)
    environment = {**os.environ, **light_forks}
    ran = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert ran.returncode == 0, ran.stderr
    first, *told, after, pools = ran.stdout.splitlines()
    assert first == "1 rank" and len(told) == 3
    assert re.fullmatch(
        r"placement\.pools\.main: 2 x 2 slots, each 2 on one node \(1 CPU a slot\) were asked for, and the nodes that "
        r"there are can never hold more than 1 of 2; missing: 1 x 2 CPUs on one node\. There is 1 node \(\S+\) with 1 "
        r"of 1 CPU free; 1 node \(\S+\) with 3 of 3 CPUs free\. Add nodes, or ask for less",
        told[0],
    )
    assert "2 slots on each of 2 nodes (1 CPU a slot) were asked for" in told[1] and "missing: 1 x 2 CPUs" in told[1]
    assert "1 slot on each of 3 nodes (1 CPU a slot) were asked for" in told[2] and "missing: 1 x 1 CPU o" in told[2]
    assert float(after.split()[-1]) < 15
    assert pools.startswith("2 nodes, 1 border"), "its slots are free again, and ranks are numbered by node"


@pytest.mark.slow
def test_parts_of_a_cluster_are_lost() -> None:
    """A rank of another node is stopped, two nodes are removed, and the head is lost for good."""
    own = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # so that 127.0.0.1 stays what it is
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(RAYS_PATIENCE_S),
    }
    ran = subprocess.run(
        [sys.executable, "-m", "tests.controller.lost_parts"], capture_output=True, text=True, timeout=280,
        env={**os.environ, **own},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    acts = {act["act"]: act for act in map(json.loads, ran.stdout.splitlines())}

    stopped = acts["stop_the_one_away"]
    assert stopped["blamed"] == stopped["stopped"] and "is stopped (SIGSTOP)" in stopped["told"]

    removed = acts["remove_a_node"]
    assert removed["detect_s"] < 10 and removed["blamed"] and removed["elsewhere"]
    assert "its node 127.0.0.1 (" in removed["told"] and "is lost" in removed["told"]

    missing = acts["remove_one_more"]
    assert "no other node had room for what was there" in missing["missing"], "and what the pool needs"
    assert missing["nodes"] == 2, "the one that joined later is used"

    head = acts["kill_the_head"]
    assert head["calls"] > 10 and head["ended_s"] < RAYS_PATIENCE_S, "ranks work on, and it ends before Ray would"
    assert "has not answered for" in head["told"] and "ends unless the head comes back within" in ran.stderr
    assert acts["leave"]["seconds"] < 30
