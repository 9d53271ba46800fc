"""A cluster that is joined is left as it was found: running, its slots free, ready to be joined again. And what is lost
of it is noticed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked_ranks import command

pytestmark = pytest.mark.processes

PROGRAM = """
from ray.cluster_utils import Cluster

from hybridflow.controller import ResourcePool, Supervisor, cluster

started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
for _ in range(2):
    with cluster(started.address):
        pool = ResourcePool("main", 1, Supervisor(), light=True)
        print(len(pool.ranks), "rank", flush=True)
        pool.close()
started.shutdown()
"""
RAYS_PATIENCE_S = 16


def test_a_cluster_is_joined_twice(tmp_path: Path, light_forks: dict[str, str]) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    program = command(str(tmp_path / "program.py"), environment=light_forks)
    environment = {**os.environ, **light_forks}
    ran = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("1 rank\n") == 2, "its only slot is free again"


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
