"""Rows of `benchmarks.faults`: a cluster that a run has joined loses a node, or its head."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.fault_plugin import FAULT, MARK
from benchmarks.fault_runs import (
    WITHIN_S,
    Ended,
    Result,
    Row,
    Running,
    Runs,
    compared,
    is_whole,
    run_name,
    seconds_between,
)
from tests.joined_cluster import REDIS, joined_cluster, redis_server

LONGER = ("trainer.steps=24",)  # than the head is away
AWAY_S = 8.0
STEPS_WITHIN_S = 120.0
RAYS_S = {"RAY_gcs_rpc_server_reconnect_timeout_s": "30"}  # Ray's own patience with a head, shorter than its 60 s


def wait_for_steps(running: Running, steps: int) -> None:
    """Wait until a run has taken so many steps."""
    file = running.folder / "metrics.jsonl"
    until = time.monotonic() + STEPS_WITHIN_S
    while not file.exists() or file.read_text().count("\n") < steps:
        assert running.process.poll() is None, f"the run ended before step {steps}: {running.lines[-1:]}"
        assert time.monotonic() < until, f"no step {steps} in {STEPS_WITHIN_S:g} s: {running.lines[-1:]}"
        time.sleep(0.01)


def removed_node(name: str, spare: bool, runs: Runs) -> Result:
    """Remove one of the two nodes of a pool: there is a third one, or one that joins later."""
    with (
        joined_cluster(3 if spare else 2, runs.forks) as cluster,
        runs.started(run_name(name), "colocated", more=cluster.settings, environment=cluster.environment) as running,
    ):
        wait_for_steps(running, 2)
        cluster.order("remove_node")
        at = time.time()
        if not spare:
            running.wait_for_line("waiting for slots on others", 60.0)
            cluster.order("add_node")
        ended = running.end()
    return _went_on(ended, at, ended.first("that it goes on after:"), compared(ended, runs.undisturbed("colocated")))


def no_node_left(name: str, runs: Runs) -> Result:
    """Remove one of two nodes, and let none join."""
    more = ("ray.start_timeout_s=20",)
    with (
        joined_cluster(2, runs.forks) as cluster,
        runs.started(
            run_name(name), "colocated", more=(*cluster.settings, *more), environment=cluster.environment
        ) as running,
    ):
        wait_for_steps(running, 3)  # so that one is saved
        cluster.order("remove_node")
        at = time.time()
        ended = running.end()
    detect_s = seconds_between(at, ended.first("that it goes on after:"))
    told = "no other node had room" in ended.last and "goes on from there: hybridflow train" in ended.last
    passes = told and ended.status == 1 and detect_s is not None and detect_s <= WITHIN_S
    return {"pass": passes, "detect_s": detect_s, "status": ended.status, "told": ended.last}


def head_away(name: str, lost_rank: bool, runs: Runs) -> Result:
    """Kill the head's service and start it again while the run goes on; a rank may die meanwhile."""
    mark = runs.place / f"{run_name(name)}.mark"
    fault = {FAULT: "actor.update_actor:20:1:SIGKILL", MARK: str(mark)} if lost_rank else {}
    with (
        _with_redis() as redis,
        joined_cluster(3, {**runs.forks, **fault}, redis) as cluster,
        runs.started(
            run_name(name), "colocated", more=(*cluster.settings, *LONGER), environment={**cluster.environment, **fault}
        ) as running,
    ):
        wait_for_steps(running, 3)
        cluster.order("kill_head")
        at = time.time()
        if lost_rank:
            running.wait_for_fault()
        time.sleep(max(0.0, at + AWAY_S - time.time()))
        cluster.order("start_head")
        ended = running.end()
    found = compared(ended, runs.undisturbed("colocated", LONGER))
    result = _went_on(ended, at, ended.first("has not answered for"), found)
    back = ended.first("answers again")
    died = ended.happened()
    meanwhile = died is not None and back is not None and at < died < back
    passes = bool(result["pass"]) and back is not None and meanwhile == lost_rank
    return {**result, "pass": passes, "back": ended.line("answers again"), "died_s": seconds_between(at, died)}


def head_lost(name: str, runs: Runs) -> Result:
    """Kill the head's service for good: the run says what it waits for, and ends before Ray would end it."""
    with joined_cluster(2, {**runs.forks, **RAYS_S}) as cluster, runs.started(
        run_name(name), "colocated", more=(*cluster.settings, "trainer.steps=2000", "trainer.validate_every=0"),
        environment={**cluster.environment, **RAYS_S},
    ) as running:  # fmt: skip
        wait_for_steps(running, 2)
        cluster.order("kill_head")
        at = time.time()
        ended = running.end(90.0)
    detect_s = seconds_between(at, ended.first("ends unless the head comes back within"))
    told = "has not answered for" in ended.last and "goes on from there: hybridflow train" in ended.last
    return {
        "pass": told and ended.status == 1 and detect_s is not None and detect_s <= WITHIN_S,
        "detect_s": detect_s,
        "ended_s": seconds_between(at, ended.at),
        "status": ended.status,
        "told": ended.last,
    }


@contextmanager
def _with_redis() -> Iterator[dict[str, str]]:
    if REDIS is None:
        raise RuntimeError("redis-server is not installed (Debian's package of that name)")
    with tempfile.TemporaryDirectory(prefix="hybridflow-redis-") as folder, redis_server(Path(folder)) as environment:
        yield environment


def _went_on(ended: Ended, at: float, told: float | None, found: Result) -> Result:
    detect_s = seconds_between(at, told)
    return {
        "pass": detect_s is not None and detect_s <= WITHIN_S and ended.status == 0 and is_whole(found),
        "detect_s": detect_s,
        "recover_s": seconds_between(told, ended.first("went on with step")),
        "status": ended.status,
        **found,
        "told": ended.line("goes on after") or ended.line("has not answered") or ended.last,
        "where": ended.line("new processes"),
    }


def _rows() -> Iterator[Row]:
    def row(name: str, make: Callable[..., Result], *more: bool) -> Row:
        return Row(name, partial(make, name, *more))

    yield row("node removed: another has a free slot", removed_node, True)
    yield row("node removed: another joins later", removed_node, False)
    yield row("node removed: no slot is left", no_node_left)
    yield row("head killed and started again, with a Redis", head_away, False)
    yield row("head killed and started again, and a rank killed meanwhile", head_away, True)
    yield row("head of a joined cluster lost for good", head_lost)


ROWS = tuple(_rows())
