"""Plugins reach the ranks of a cluster that does not see the driver's folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

PROGRAM = """
import shutil
import sys
from ray.cluster_utils import Cluster

from hybridflow.controller import ResourcePool, Supervisor, cluster

folder, plugins = sys.argv[1], sys.argv[2:]
sys.path.append(folder)
started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
with cluster(started.address, plugins=plugins):
    shutil.rmtree(folder)  # as on a machine that does not have it
    pool = ResourcePool("main", 1, Supervisor(), light=True, plugins=plugins)
    print(len(pool.ranks), "ranks", flush=True)
    pool.close()
started.shutdown()
"""


def test_a_package_and_a_single_file_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A forked rank would not search the folders that Ray starts a process with.
    monkeypatch.delenv("RAY_RUNTIME_ENV_HOOK", raising=False)
    own = tmp_path / "own"
    (own / "my_package").mkdir(parents=True)
    (own / "my_package" / "__init__.py").touch()
    (own / "my_package" / "parts.py").write_text("SIZE = 3\n")
    (own / "my_package" / "rl.py").write_text("from my_package.parts import SIZE\n")
    (own / "my_file.py").write_text("import json\n")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(own), "my_package.rl", "my_file"],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "1 ranks" in ran.stdout and not own.exists()
