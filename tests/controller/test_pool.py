"""Pools: room for their slots, roles that fit them, and nothing left when they end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from uuid import uuid4

import psutil
import pytest

from hybridflow.controller import ResourcePool, Supervisor
from hybridflow.controller import pool as pools
from hybridflow.errors import HybridFlowError
from hybridflow.parallel.layout import Layout
from tests.controller.stage import Stage

pytestmark = pytest.mark.ranks


def test_no_room(local_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "START_TIMEOUT_S", 0.5)
    with pytest.raises(HybridFlowError, match=r"placement\.pools\.big: 100 slots .* were not free within .* CPUs"):
        ResourcePool("big", 100, Supervisor())


def test_a_closed_pool_gives_its_slots_back(new_stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "START_TIMEOUT_S", 20.0)
    for _ in range(2):  # twice 2 slots, where 3 are free
        new_stage(2).pool.close()


def test_a_layout_that_does_not_fill_its_pool(stage: Stage) -> None:
    with pytest.raises(ValueError, match=r"role 'scribe': its layout has 2 ranks, pool 'stage' has 4 slots"):
        stage.play("scribe", Layout(tensor=2))


def test_a_role_that_nobody_knows(stage: Stage) -> None:
    with pytest.raises(KeyError, match=r"no role is named 'scribble'; did you mean 'scribe'\?"):
        stage.play("scribble")


def test_a_plugin_that_ranks_cannot_import(local_cluster: None) -> None:
    with pytest.raises(HybridFlowError) as found:
        ResourcePool("stage", 1, Supervisor(), plugins=["no_such_plugin"])
    last = str(found.value).splitlines()[-1]
    assert last.startswith("placement.pools.stage: a process did not start: ImportError: plugins: cannot import")


FAILING = """
from tests.controller.stage import Stage
with cluster(slots=2):
    Stage(2).play("vandal").die(rank=0, peers_raise=False).get()
"""


def test_a_failed_run_ends_soon_and_leaves_no_process() -> None:
    mark = uuid4().hex
    start = time.time()
    done = _driver(FAILING, {"HYBRIDFLOW_TEST_MARK": mark})
    assert done.returncode == 1 and time.time() - start < 100  # most of it is the cluster's start
    assert "vandal.die failed on rank 0" in done.stderr.splitlines()[-1]
    deadline = time.time() + 10
    while (left := _marked(mark)) and time.time() < deadline:
        time.sleep(0.2)
    assert left == []


def test_a_marked_process_is_found() -> None:
    mark = uuid4().hex
    process = subprocess.Popen(["sleep", "30"], env={**os.environ, "HYBRIDFLOW_TEST_MARK": mark})
    try:
        assert _marked(mark) == ["sleep"]
    finally:
        process.kill()
        process.wait()


def _driver(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script as a controller of its own."""
    return subprocess.run(
        [sys.executable, "-c", f"from hybridflow.controller import cluster\n{script}"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def _marked(mark: str) -> list[str]:
    """Names of the processes that inherited this mark from a driver."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HYBRIDFLOW_TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.name())
        except psutil.Error:  # it ended meanwhile, or it is not ours
            continue
    return found
