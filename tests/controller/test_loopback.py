"""A local cluster listens on the loopback interface only, and starts nothing that a run has no use for; signals are
heeded after it as before, and a driver that is killed leaves none of it.
"""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

pytestmark = pytest.mark.processes

PROGRAM = """
import os, psutil, time
from hybridflow import interrupt
from hybridflow.controller import cluster

def command(process):
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended
        return []

heeded = interrupt.heeded()
heeded.__enter__()
with cluster(slots=1):
    me = psutil.Process()
    for _ in range(100):  # one may not have been forked yet, or only just, and not yet be another program
        session = [me, *me.children(recursive=True)]
        agents = [one for one in session[1:] if any(part.endswith("agent_process.py") for part in command(one)[:3])]
        if len(agents) == 2:
            break
        time.sleep(0.1)
    found = [(process.name(), c) for process in session for c in process.net_connections("inet")]
    listening = [(name, c.laddr) for name, c in found if c.status == psutil.CONN_LISTEN]
    local = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    print(len(listening) > 3, [(name, address) for name, address in listening if address.ip not in local])
    programs = {part.rpartition("/")[2] for process in session[1:] for part in command(process)[:3]}
    print(sorted(programs & {"gcs_server", "raylet", "dashboard.py", "monitor.py", "log_monitor.py", "ray::IDLE"}))
    with_ray = [process for process in agents if any("_raylet.so" in file.path for file in process.memory_maps())]
    print(len(agents), len(with_ray))
try:
    os.kill(os.getpid(), 15)
    print("nothing")
except KeyboardInterrupt as stop:
    print(stop)
"""


def test_nothing_listens_beyond_loopback_and_nothing_idles() -> None:
    # The hook of a cluster that other tests share would have the agent begin at once.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_RUNTIME_ENV_HOOK"}
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, env=environment)
    assert ran.returncode == 0, ran.stderr
    told = ["True []", "['gcs_server', 'raylet']", "2 0", "interrupted by SIGTERM"]
    assert ran.stdout.splitlines()[-4:] == told


ASKED = """
import os, ray
from hybridflow.controller import cluster

@ray.remote
def found():
    return os.environ.get("GIVEN"), os.environ["OMP_NUM_THREADS"]

with cluster(slots=1):
    print(ray.get(found.remote()))
    print(ray.get(found.options(runtime_env={"env_vars": {"GIVEN": "by a runtime environment"}}).remote()))
print("OMP_NUM_THREADS" in os.environ)
"""


def test_an_agent_begins_where_somebody_asks_it() -> None:
    """Processes of ours need no runtime environment; a plugin may give one to those that it starts."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    ran = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, timeout=120, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["(None, '1')", "('by a runtime environment', '1')", "False"]


KILLED = """
import os, psutil
from hybridflow.controller import cluster

with cluster(slots=1):
    print(*(process.pid for process in psutil.Process().children(recursive=True)), flush=True)
    os.kill(os.getpid(), 9)
"""


def test_what_ray_has_started_ends_with_a_driver_that_is_killed() -> None:
    ran = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=120)
    started = [int(pid) for pid in ran.stdout.split()]
    assert len(started) >= 4, ran.stderr  # gcs_server, raylet and two agents
    _, left = psutil.wait_procs([psutil.Process(pid) for pid in started if psutil.pid_exists(pid)], timeout=5)
    assert left == []
