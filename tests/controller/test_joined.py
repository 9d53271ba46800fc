"""A cluster that is joined is left as it was found: running, its slots free, ready to be joined again."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

PROGRAM = """
from ray.cluster_utils import Cluster

from hybridflow.controller import ResourcePool, Supervisor, cluster

started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
for _ in range(2):
    with cluster(started.address):
        pool = ResourcePool("main", 2, Supervisor(), light=True)
        print(len(pool.ranks), "ranks", flush=True)
        pool.close()
started.shutdown()
"""


def test_a_cluster_is_joined_twice() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=150)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("2 ranks") == 2
