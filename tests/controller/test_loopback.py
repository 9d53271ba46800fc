"""A local cluster listens on the loopback interface only."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import psutil
from hybridflow.controller import cluster

with cluster(slots=1):
    me = psutil.Process()
    session = [me, *me.children(recursive=True)]
    open_to_all = [
        (process.name(), connection.laddr)
        for process in session
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    ]
    listening = [c for p in session for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    print(len(listening) > 3, open_to_all)
"""


def test_nothing_listens_beyond_loopback() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().splitlines()[-1] == "True []"
