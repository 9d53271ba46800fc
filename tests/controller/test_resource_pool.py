"""Pools: room for their slots, roles that fit them, and nothing left when they end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from uuid import uuid4

import numpy as np
import psutil
import pytest

from hybridflow.batch import Batch
from hybridflow.config import Config
from hybridflow.controller import ResourcePool, Supervisor, cluster_nodes
from hybridflow.controller.failure_policy import RaiseToRecover
from hybridflow.controller.slots import PAUSE_S, Slots
from hybridflow.errors import HybridFlowError
from hybridflow.parallel.layout import Layout
from hybridflow.placement import RoleSpec
from hybridflow.placement.node_bundles import Bundles
from hybridflow.runtime.failure import RoleError
from hybridflow.trainer.build import start_role
from tests.controller import rank_functions
from tests.controller.stage import Stage

pytestmark = pytest.mark.ranks


def test_what_the_machine_will_never_have_is_told_at_once(local_cluster: None) -> None:
    begin = time.monotonic()
    with pytest.raises(HybridFlowError) as found:
        ResourcePool("big", 100, Supervisor(), together=50, nodes_timeout_s=0.0)
    assert time.monotonic() - begin < 5
    assert re.fullmatch(
        r"placement\.pools\.big: 2 x 50 slots, each 50 on one node \(1 CPU a slot\) were asked for, and the nodes that "
        r"there are can never hold more than 0 of 2; missing: 2 x 50 CPUs on one node\. There is 1 node "
        r"\(127\.0\.0\.1\) with \d of 7 CPUs free\. Add nodes, or ask for less",
        str(found.value),
    )


def test_a_closed_pool_gives_its_slots_back(new_stage: Callable[..., Stage]) -> None:
    for _ in range(2):  # twice 2 slots, where 3 are free
        new_stage(2).pool.close()


def test_slots_that_are_free_are_had_at_once_and_nobody_has_them_afterwards(local_cluster: None) -> None:
    (before,) = cluster_nodes.living_nodes()
    seconds = []
    for _ in range(9):
        begin = time.monotonic()
        slots = Slots("again", Bundles(1), {"CPU": 1.0}, 20.0, 20.0)
        seconds.append(time.monotonic() - begin)
        slots.release()
    assert median(seconds) < PAUSE_S, "not paused though they are there; now and then Ray itself takes a second"
    (after,) = cluster_nodes.living_nodes()
    assert after.others == before.others


def test_a_role_is_started_again_from_its_spec(new_stage: Callable[..., Stage]) -> None:
    """On the same processes, and on others when these are gone."""
    spec = RoleSpec("scribe", "stage", Layout(data=2), rank_functions.Scribe, "scribe")
    rows = Batch(n=np.arange(5))
    for _ in range(2):
        stage = new_stage(2)
        groups = [start_role(Config(), stage.pool, spec) for _ in range(2)]
        assert [group.double(rows).get().dense("double").tolist() for group in groups] == [[0, 2, 4, 6, 8]] * 2
        stage.pool.close()


def test_a_role_that_nobody_knows(stage: Stage) -> None:
    with pytest.raises(KeyError, match=r"no role is named 'scribble'; did you mean 'scribe'\?"):
        stage.start_role("scribble")


def test_a_plugin_that_ranks_cannot_import(local_cluster: None) -> None:
    with pytest.raises(HybridFlowError) as found:
        ResourcePool("stage", 1, Supervisor(), plugins=["no_such_plugin"])
    last = str(found.value).splitlines()[-1]
    wanted = (
        r"placement\.pools\.stage\.import_plugins failed on rank 0 \(127.*\): ImportError: plugins: cannot import .*"
    )
    assert re.fullmatch(wanted, last)


def test_a_plugin_that_hangs(local_cluster: None) -> None:
    start = time.time()
    with pytest.raises(HybridFlowError) as found:
        ResourcePool("stage", 2, Supervisor(), start_timeout_s=8, plugins=["tests.controller.hanging"])
    last = str(found.value).splitlines()[-1]
    pool = "placement.pools.stage.import_plugins failed on rank 0 (no report)"
    assert last.startswith(f"{pool}: it was not done after 8 s") and time.time() - start < 60
    assert "(nor on 1 more of its 2 ranks); it is in " in last and "tests/controller/hanging.py:5)" in last


FAILING = """
from hybridflow.controller import ResourcePool, Supervisor
from tests.controller.stage import Stage
with cluster(slots=3):
    ResourcePool("own", 1, Supervisor(), plugins=["mine"])
    Stage(2).start_role("vandal").die(rank=0, peers_raise=False).get()
"""
# Ray's own processes would not start; the driver, whose program is `-c`, finds in it what it wants.
HIDES = """
import os, sys
if sys.argv[0] != "-c":
    raise SystemExit("PYTHONPATH is searched before the library")
exec(open(os.path.join(os.path.dirname(os.__file__), "random.py")).read())
"""
SHADOWS = "raise SystemExit('the working directory is searched before the library')"


def test_a_failed_run_ends_soon_and_leaves_nothing(tmp_path: Path) -> None:
    """No process, and no temporary file of a rank, which is killed.

    Beside a plugin stand modules that are named as some that every process imports; the plugin alone is found. A
    folder of PYTHONPATH has one too.
    """
    (tmp_path / "own").mkdir()
    (tmp_path / "own/random.py").write_text(HIDES)
    for name in ("secrets", "random", "torch", "numpy", "hybridflow"):
        (tmp_path / f"{name}.py").write_text(SHADOWS)
    (tmp_path / "mine.py").write_text("import secrets, random, numpy, tempfile\ntempfile.mkdtemp()\nprint('found')\n")
    mark = uuid4().hex
    start = time.time()
    with tempfile.TemporaryDirectory() as temporary:  # whose path is short, as sockets need it
        environment = {"HYBRIDFLOW_TEST_MARK": mark, "PYTHONPATH": str(tmp_path / "own"), "TMPDIR": temporary}
        done = _driver(FAILING, environment, tmp_path)
        assert os.listdir(temporary) == []
    assert done.returncode == 1 and time.time() - start < 100  # most of it is the cluster's start
    assert "vandal.die failed on rank 0" in done.stderr.splitlines()[-1], done.stderr
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


def _driver(script: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as a controller of its own, in a folder that Python does not search; our tests are appended."""
    found = f"import sys\nsys.path.append({str(Path(__file__).parents[2])!r})\n"
    return subprocess.run(
        [sys.executable, "-P", "-c", f"{found}from hybridflow.controller import cluster\n{script}"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False, cwd=folder,
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


def test_a_lost_pool_alone_is_given_new_processes(new_stage: Callable[..., Stage]) -> None:
    """The groups that an algorithm holds go on; another pool ends what it was asked, and keeps its processes."""
    supervisor = Supervisor(RaiseToRecover())
    first, second = new_stage(1, supervisor), new_stage(1, supervisor)
    vandal, scribe, other = first.start_role("vandal"), first.start_role("scribe"), second.start_role("scribe")
    before = [stage.pool.places[0].pid for stage in (first, second)]
    supervisor.begin_step(3)
    with pytest.raises(RoleError, match=r"vandal\.die failed on rank 0 .* in step 3: its process \d+ died"):
        vandal.die(rank=0, peers_raise=False).get()
    assert supervisor.quiesce(second.pool, within_s=5.0) == [first.pool], "whatever is suspected"
    supervisor.resume()
    first.pool.restart()
    assert supervisor.step is None and ("vandal", "die") in supervisor.called
    now = [group.pid().get() for group in (scribe, other)]
    assert now[0] != [before[0]] and now[1] == [before[1]]
    assert scribe.double(Batch(n=np.arange(2))).get().dense("double").tolist() == [0, 2]


def test_a_pool_whose_ranks_do_not_come_to_rest_is_lost_too(new_stage: Callable[..., Stage], tmp_path: Path) -> None:
    supervisor = Supervisor(RaiseToRecover())
    first, second = new_stage(1, supervisor), new_stage(1, supervisor)
    vandal, scribe = first.start_role("vandal"), second.start_role("scribe")
    rows = scribe.patient(Batch(n=np.arange(1)), file=str(tmp_path / "there"))
    with pytest.raises(RoleError):
        vandal.die(rank=0, peers_raise=False).get()
    assert supervisor.quiesce(first.pool, within_s=0.1) == [first.pool, second.pool]
    supervisor.resume()
    with pytest.raises(HybridFlowError, match=r"scribe\.patient: what this call gave was lost with a failure"):
        rows.get()


def test_pools_start_and_build_side_by_side(local_cluster: None) -> None:
    """Nothing is waited for before both have begun."""
    supervisor = Supervisor()
    plugins = [rank_functions.__name__]
    pools = [ResourcePool(name, 1, supervisor, plugins=plugins, wait=False) for name in ("first", "second")]
    try:
        assert [len(pool.places) for pool in pools] == [0, 0]
        for pool in pools:
            pool.wait_started()
        groups = [pool.start_role("scribe", Layout(), wait=False) for pool in pools]
        doubles = [group.double(Batch(n=np.arange(2))) for group in groups]  # a rank builds before it is called
        for pool in pools:
            pool.wait_built()
        assert [rows.get().dense("double").tolist() for rows in doubles] == [[0, 2], [0, 2]]
        assert all(pool.start_s > 0 for pool in pools)
    finally:
        for pool in pools:
            pool.close()
