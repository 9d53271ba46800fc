"""Failures: the first is what the user sees, soon, with its cause at the end. Metrics: joined by what they are."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import psutil
import pytest
import ray

from hybridflow.batch import Batch
from hybridflow.controller import Supervisor, put
from hybridflow.controller.failure_policy import RankSource
from hybridflow.parallel.layout import Layout
from hybridflow.runtime.failure import RoleError
from tests.controller.rank_functions import Vandal
from tests.controller.stage import Stage
from tests.matrix import thinned
from tests.runtime.test_failure import CAUSES

pytestmark = pytest.mark.ranks


def numbers(count: int) -> Any:
    return put(Batch(n=np.arange(count)))


def failing(call: Callable[[], Any], within_s: float = 10.0) -> RoleError:
    """The RoleError of a call; it must come soon."""
    start = time.time()
    with pytest.raises(RoleError) as found:
        call()
    assert time.time() - start < within_s
    return found.value


def test_what_a_method_returns_is_checked_on_its_rank(new_stage: Callable[..., Stage]) -> None:
    stage = new_stage(1)
    stage.start_role("vandal").wrong_rows(numbers(3))
    last = str(failing(stage.supervisor.wait_all)).splitlines()[-1]
    wanted = r"vandal\.wrong_rows failed on rank 0 \(.*\): ValueError: the method was given 3 rows and returned 2"
    assert re.fullmatch(wanted, last)


def test_a_column_of_another_kind_is_named(new_stage: Callable[..., Stage]) -> None:
    stage = new_stage(1)
    stage.supervisor.begin_step(7)
    stage.start_role("vandal").wrong_kind(numbers(3))
    last = str(failing(stage.supervisor.wait_all)).splitlines()[-1]
    wanted = (
        r"vandal\.wrong_kind failed on rank 0 \(.*\) in step 7: TypeError: column 'good' is declared as float, .* int"
    )
    assert re.fullmatch(wanted, last)


def test_rows_that_were_not_made_raise_what_went_wrong(new_stage: Callable[..., Stage]) -> None:
    broken = new_stage(2).start_role("vandal").fail_in_turn(numbers(2), first=1)
    assert failing(broken.get).failure.error == "ZeroDivisionError: row 1 is broken"
    assert failing(broken.metadata).failure.rank == 1


def test_the_first_failing_rank_is_shown(new_stage: Callable[..., Stage]) -> None:
    """Rank 1 fails; rank 0 fails after it, for another reason; a role that wants their rows fails because of both."""
    stage = new_stage(2)
    vandal, scribe = stage.start_role("vandal"), stage.start_role("scribe")
    broken = vandal.fail_in_turn(numbers(4), first=1)
    result = scribe.columns(numbers(4) | broken)
    error = failing(result.get)
    lines = str(error).splitlines()
    assert lines[0] == "Traceback (most recent call last):" and "raise ZeroDivisionError" in str(error)
    assert re.fullmatch(r"vandal\.fail_in_turn failed on rank 1 \(.*\): ZeroDivisionError: row 2 is broken", lines[-1])
    assert "connection closed" not in str(error)
    assert re.fullmatch(r"\(\d more failed after it: .*vandal\.fail_in_turn on 1.*\)", lines[-2])
    assert (error.failure.role, error.failure.rank, error.failure.follows) == ("vandal", 1, False)


def test_a_failure_reaches_whoever_waits_on_another_pool(new_stage: Callable[..., Stage]) -> None:
    upstream = new_stage(1)
    downstream = new_stage(1, upstream.supervisor)
    vandal, scribe = upstream.start_role("vandal"), downstream.start_role("scribe")
    broken = vandal.fail_in_turn(numbers(2), first=0)
    result = scribe.columns(broken | numbers(2))
    assert failing(result.get).failure.role == "vandal"
    again = failing(upstream.supervisor.wait_all)  # and it stays the answer
    assert again.failure.error == "ZeroDivisionError: row 0 is broken"


HOW = {
    "SIGKILL": "killed by SIGKILL",
    "SIGSEGV": "killed by SIGSEGV",
    "SIGABRT": "killed by SIGABRT",  # SIGTERM a rank leaves to its driver
    "0": "exit code 0",
    "3": "exit code 3",
}


@pytest.mark.parametrize(("how", "peers_raise"), [("SIGKILL", True), *((how, False) for how in HOW)])
def test_a_process_that_dies_is_named(new_stage: Callable[..., Stage], how: str, peers_raise: bool) -> None:
    stage = new_stage(2)
    vandal = stage.start_role("vandal")
    error = failing(vandal.die(rank=1, peers_raise=peers_raise, how=how).get)
    pid, last = stage.pool.places[1].pid, str(error).splitlines()[-1]
    assert re.match(rf"vandal\.die failed on rank 1 \(127\.0\.0\.1\): its process {pid} died: {HOW[how]}", last)
    assert (error.failure.role, error.failure.rank, error.failure.method) == ("vandal", 1, "die")


RAISED = [*CAUSES.items(), ("gives a socket", "TypeError: cannot pickle .*")]


# Their texts are those of tests/runtime/test_failure.py: here those that a rank might not be able to send.
@pytest.mark.parametrize(
    ("what", "cause"),
    thinned(RAISED, [case for case in RAISED if case[0] in ("exit", "unspeakable", "huge", "gives a socket")]),
)
def test_whatever_is_raised_is_reported(new_stage: Callable[..., Stage], what: str, cause: str) -> None:
    stage = new_stage(2)
    error = failing(stage.start_role("vandal").throw(what=what).get)
    lines = str(error).splitlines()
    assert re.fullmatch(rf"vandal\.throw failed on rank [01] \(127\.0\.0\.1\): {cause}", lines[-1]), lines[-1]
    assert lines[-2] == "(1 more failed after it: vandal.throw on 1)"
    assert len(str(error)) < 25_000


def test_a_method_that_is_not_there(new_stage: Callable[..., Stage]) -> None:
    """Not on the rank, though the controller declares it."""
    stage = new_stage(1)
    vandal = stage.start_role("scribe", interface=Vandal)
    error = failing(vandal.throw(what="exit").get)
    assert re.fullmatch(r"scribe\.throw failed on rank 0 \(.*\): KeyError: 'throw'", str(error).splitlines()[-1])


def test_a_role_that_cannot_be_built(new_stage: Callable[..., Stage]) -> None:
    error = failing(lambda: new_stage(2).start_role("stillborn"), within_s=20.0)
    assert re.fullmatch(
        r"stillborn\.build failed on rank 1 \(.*\): FileNotFoundError: no such model: nowhere",
        str(error).splitlines()[-1],
    )


def test_metrics_of_uneven_parts(stage: Stage) -> None:
    """Eleven rows over four ranks, in two calls: the mean is that of the rows, not of the ranks."""
    scribe = stage.start_role("scribe")
    stage.supervisor.collect_metrics()
    scribe.measure(numbers(11))
    scribe.measure(numbers(3))
    found = stage.supervisor.collect_metrics()
    assert found["n/mean"] == pytest.approx((55 + 3) / 14)
    assert found["n/total"] == 58 and found["n/max"] == 10
    assert 0 < found["timing_s/measure"] < 5
    assert stage.supervisor.collect_metrics() == {}


def test_the_largest_is_of_all_ranks_and_times_of_calls_add_up(stage: Stage) -> None:
    """Of one tensor parallel replica, whose results come from rank 0; it is not the rank that took longest."""
    scribe = stage.start_role("scribe", Layout(tensor=4))
    stage.supervisor.collect_metrics()
    for _ in range(2):
        scribe.measure_ranks(numbers(4))
    found = stage.supervisor.collect_metrics()
    assert (found["rank/largest"], found["rank/smallest"]) == (3, -3)
    assert found["timing_s/part"] == 2 * 4, "the slowest rank of each call"
    assert found["n/mean"] == 1.5 and (found["n/min"], found["n/max"]) == (0, 3)


def test_metrics_count_once_what_replicas_share(stage: Stage) -> None:
    scribe = stage.start_role("scribe", Layout(tensor=2, data=2))
    scribe.measure_once_a_replica(numbers(5))
    scribe.measure_everywhere()
    found = stage.supervisor.collect_metrics()
    assert found["replicas/total"] == 10 and found["ranks/total"] == 4


def test_a_barrier_is_not_the_end_of_a_step(stage: Stage) -> None:
    """What was measured stays with the step in which it was called, whenever it is waited for."""
    scribe, supervisor = stage.start_role_once("scribe"), stage.supervisor
    supervisor.collect_metrics()
    scribe.measure(numbers(3))
    supervisor.begin_step(0)
    scribe.measure(numbers(5))
    supervisor.wait_all()
    scribe.measure(numbers(1))
    supervisor.begin_step(1)
    scribe.measure(numbers(2))
    assert supervisor.finish_step()["n/total"] == 1 and supervisor.step is None
    assert supervisor.collect_metrics()["n/total"] == 3, "of calls outside of any step"
    supervisor.begin_step(2)
    assert supervisor.finish_step() == {}


def test_steps_that_overlap_keep_their_metrics_and_their_random_streams(stage: Stage) -> None:
    scribe, supervisor = stage.start_role_once("scribe"), stage.supervisor
    supervisor.begin_step(0)
    scribe.measure(numbers(5))
    assert supervisor.count_sampling() == 0
    supervisor.begin_step(1)
    scribe.measure(numbers(3))
    assert [supervisor.count_sampling() for _ in range(2)] == [0, 1]
    supervisor.enter_step(0)
    supervisor.wait_step(1)
    assert supervisor.count_sampling() == 1
    assert supervisor.finish_step()["n/total"] == 0 + 1 + 2 + 3 + 4
    supervisor.enter_step(1)
    assert supervisor.count_sampling() == 2
    assert supervisor.finish_step()["n/total"] == 0 + 1 + 2


def test_the_end_of_a_step_does_not_wait_for_another(stage: Stage, tmp_path: Path) -> None:
    scribe, supervisor = stage.start_role_once("scribe"), stage.supervisor
    supervisor.begin_step(1)
    waiting = scribe.patient(numbers(4), file=str(tmp_path / "there"))
    supervisor.begin_step(0)
    assert supervisor.finish_step() == {}
    (tmp_path / "there").touch()
    assert waiting.get().dense("waited").tolist() == [1.0] * 4


class Lenient:
    """A policy of a user's: the ranks live on."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def handle(self, error: RoleError, pools: Iterable[RankSource]) -> NoReturn:
        self.seen.append((error.failure.method, sum(len(pool.ranks) for pool in pools)))
        raise LookupError("decided by the policy") from error


def test_what_follows_from_a_failure_is_the_policys(new_stage: Callable[..., Stage]) -> None:
    policy = Lenient()
    stage = new_stage(2, Supervisor(policy))
    pids = [place.pid for place in stage.pool.places]
    with pytest.raises(LookupError, match="decided by the policy"):
        stage.start_role("vandal").fail_in_turn(numbers(2), first=0, wait_s=0.0).get()
    assert policy.seen == [("fail_in_turn", 2)]
    assert ray.get([rank.__ray_ready__.remote() for rank in stage.pool.ranks]) == [True, True]
    assert all(map(psutil.pid_exists, pids))


def test_a_pool_may_be_given_other_ranks_under_a_living_group(new_stage: Callable[..., Stage]) -> None:
    supervisor = Supervisor()
    first, second = new_stage(1, supervisor), new_stage(1, supervisor)
    scribe = first.start_role("scribe")
    second.start_role("scribe")
    own = first.pool.ranks
    assert scribe.pid().get() == [first.pool.places[0].pid]
    first.pool.ranks = second.pool.ranks
    assert scribe.pid().get() == [second.pool.places[0].pid]
    first.pool.ranks = own
