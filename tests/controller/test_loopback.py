"""A local cluster listens on the loopback interface only, and starts nothing that a run has no use for; signals are
heeded after it as before, and a driver that is killed leaves none of it.
"""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

pytestmark = pytest.mark.processes

PROGRAM = """
import os, psutil
from hybridflow import interrupt
from hybridflow.controller import cluster

heeded = interrupt.heeded()
heeded.__enter__()
with cluster(slots=1):
    me = psutil.Process()
    session = [me, *me.children(recursive=True)]
    found = [(process.name(), c) for process in session for c in process.net_connections("inet")]
    listening = [(name, c.laddr) for name, c in found if c.status == psutil.CONN_LISTEN]
    local = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    print(len(listening) > 3, [(name, address) for name, address in listening if address.ip not in local])
    programs = {part.rpartition("/")[2] for process in session[1:] for part in process.cmdline()[:3]}
    print(sorted(programs & {"gcs_server", "raylet", "dashboard.py", "monitor.py", "log_monitor.py", "ray::IDLE"}))
try:
    os.kill(os.getpid(), 15)
    print("nothing")
except KeyboardInterrupt as stop:
    print(stop)
"""


def test_nothing_listens_beyond_loopback_and_nothing_idles() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    told = ["True []", "['gcs_server', 'raylet']", "interrupted by SIGTERM"]
    assert ran.stdout.splitlines()[-3:] == told


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
