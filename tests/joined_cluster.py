"""A Ray cluster of several nodes on this machine, for runs to join: parts of it can be taken away, and given back.

It is a program of its own, which takes its orders from its input: Ray ends a process that loses its head for good. All
of it listens on 127.0.0.1, and asks for a token.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SOON = {"health_check_period_ms": 500, "health_check_failure_threshold": 3, "health_check_initial_delay_ms": 0}
HERE = {"num_cpus": 1, "node_ip_address": "127.0.0.1"}
ROOT = Path(__file__).parents[1]
REDIS = shutil.which("redis-server")
UP_WITHIN_S = 10.0


class JoinedCluster:
    """A cluster whose head has no slot, and each other node one.

    Attributes:
        environment: of a run that joins it.
    """

    def __init__(self, process: subprocess.Popen[str], environment: Mapping[str, str]) -> None:
        self._process = process
        self.address = self._answer()
        self.environment = dict(environment)

    @property
    def settings(self) -> tuple[str, ...]:
        """Settings of a run that joins it."""
        return (f"ray.address={self.address}",)

    def order(self, what: str) -> str:
        """Carry out a function of this module on the cluster; return what it says."""
        assert self._process.stdin is not None
        print(what, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the cluster's program has ended"
        return str(json.loads(line))


@contextmanager
def joined_cluster(
    nodes: int, environment: Mapping[str, str] | None = None, redis: Mapping[str, str] | None = None
) -> Iterator[JoinedCluster]:
    """Start a cluster of a head and so many nodes; end it after the block.

    Args:
        environment: of its processes, ranks among them.
        redis: what `redis_server` yields.
    """
    own = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # so that 127.0.0.1 stays what it is
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.joined_cluster", str(nodes)], cwd=ROOT, stdin=subprocess.PIPE, text=True,
        stdout=subprocess.PIPE, env={**os.environ, **(environment or {}), **(redis or {}), **own},
    )  # fmt: skip
    try:
        yield JoinedCluster(process, own)
    finally:
        with suppress(OSError):
            process.communicate(timeout=20)
        process.kill()  # what Ray's reaper ends then


@contextmanager
def redis_server(folder: Path) -> Iterator[dict[str, str]]:
    """Serve a Redis on 127.0.0.1, with a password; yield the environment of a head that keeps its state there."""
    assert REDIS is not None
    password = secrets.token_hex(32)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = (f"port {port}", "bind 127.0.0.1", f"requirepass {password}", f"dir {folder}", 'save ""', "appendonly no")
    process = subprocess.Popen([REDIS, "-"], stdin=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write("\n".join(lines) + "\n")
    process.stdin.close()
    try:
        _wait_for(port)
        yield {"RAY_REDIS_ADDRESS": f"127.0.0.1:{port}", "TEST_REDIS_PASSWORD": password}
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int) -> None:
    end = time.monotonic() + UP_WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)


def remove_node(cluster: Any) -> str:
    """Take the node away at once that the last slot of the newest pool is on."""
    tables = cluster.global_state.placement_group_table().values()
    used = [table["bundles_to_node_id"] for table in tables if table["state"] == "CREATED"]
    node = next(node for node in cluster.worker_nodes if node.node_id == used[-1][max(used[-1])])
    cluster.remove_node(node, allow_graceful=False)
    return str(node.node_id)


def add_node(cluster: Any) -> str:
    """Let one more join."""
    return str(cluster.add_node(**HERE).node_id)


def kill_head(cluster: Any) -> str:
    """Kill the head's service, not its node."""
    cluster.head_node.kill_gcs_server()
    return "killed"


def start_head(cluster: Any) -> str:
    """Start the head's service again, on its port."""
    cluster.head_node.start_gcs_server()
    return str(cluster.head_node.gcs_address)


ORDERS = {function.__name__: function for function in (remove_node, add_node, kill_head, start_head)}


def main() -> None:
    """Start the cluster and do as it is told; Ray's agents end with their nodes, as those of a local cluster do."""
    from ray.cluster_utils import Cluster

    from hybridflow.controller.ray_start import agents_that_end

    password = os.environ.get("TEST_REDIS_PASSWORD")
    head = {**HERE, "num_cpus": 0, "_system_config": SOON, **({"redis_password": password} if password else {})}
    answers, sys.stdout = sys.stdout, sys.stderr
    with agents_that_end(local=True):
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(int(sys.argv[1])):
            add_node(cluster)
        print(json.dumps(cluster.address), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(ORDERS[line.strip()](cluster)), file=answers, flush=True)
        os._exit(0)  # Ray's reaper ends the rest; to shut it down in order would wait for a head that is gone


if __name__ == "__main__":
    main()
