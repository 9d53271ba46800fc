"""Ranks that do not report: who is stopped, who takes too long, and what is said before anything is done."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from hybridflow.controller import Supervisor
from hybridflow.controller.deadlines import BETWEEN_LOOKS_S, SAY_AFTER_S, Deadlines, OldestCallClock
from hybridflow.controller.health import Health
from hybridflow.controller.process_watch import GONE_LOOKS, STOPPED_LOOKS, LookCounts
from hybridflow.runtime.failure import FailureKind
from tests.controller.stage import Stage
from tests.controller.test_supervisor import failing


def test_a_deadline_is_a_roles_own_or_that_of_all() -> None:
    deadlines = Deadlines(60.0, {"reward": 5.0})
    assert deadlines.of("reward") == (5.0, "trainer.call_timeouts_s.reward")
    assert deadlines.of("actor") == (60.0, "trainer.call_timeout_s")


def test_the_time_of_a_call_begins_when_it_is_the_oldest() -> None:
    clock = OldestCallClock()
    assert [clock.waited("first", 100.0 + look) for look in range(31)] == [*range(31)]
    assert clock.waited("second", 131.0) == 0.0, "though it was made long before"


def test_no_time_counts_in_which_the_driver_was_stopped() -> None:
    """As by Ctrl-Z, which may have stopped the ranks too."""
    clock = OldestCallClock()
    waited = [clock.waited("call", now) for now in (0.0, 1.0, 2.0, 3602.0, 3603.0)]
    assert waited == [0.0, 1.0, 2.0, 2.0 + BETWEEN_LOOKS_S, 3.0 + BETWEEN_LOOKS_S]


def test_a_long_call_is_spoken_of_ever_less_often() -> None:
    clock = OldestCallClock()
    spoken = [now for now in range(300) if clock.time_to_say("a.b", clock.waited("call", now), 7200.0)]
    assert spoken == [SAY_AFTER_S * 2**times for times in range(4)]


def test_what_usually_takes_long_is_spoken_of_later_and_each_deadline_before_it_ends() -> None:
    clock = OldestCallClock()
    clock.note("a.b", 40.0)
    clock.note("a.b", 10.0)
    clock.waited("call", 0.0)
    assert not clock.time_to_say("a.b", 119.0, 7200.0)
    assert clock.time_to_say("a.b", 120.0, 7200.0)
    clock.waited("another", 0.0)
    assert clock.time_to_say("a.b", 2.5, 5.0)


def test_a_process_is_lost_when_it_is_stopped_at_every_look_for_a_while() -> None:
    """One that was only looked at by a debugger, or stopped by Ctrl-Z together with the driver, is not."""
    counts = LookCounts()
    for state in "TTSTTt" + "T" * (STOPPED_LOOKS - 1):
        counts.take_in(0, state)
        counts.take_in(1, "R")
        assert counts.lost() == {}
        assert counts.suspected() == ([0] if counts.stopped[0] == 1 else []), "it is told once"
    counts.take_in(0, "T")
    assert counts.lost() == {0: "stopped"} and counts.suspected() == []


def test_a_process_that_is_gone_is_rays_to_tell_first() -> None:
    counts = LookCounts()
    for _ in range(GONE_LOOKS - 1):
        counts.take_in(1, "")
    assert counts.lost() == {}
    counts.take_in(1, "Z")
    assert counts.lost() == {1: "gone"}


def timed(seconds: float, folder: Path | None = None) -> Supervisor:
    return Supervisor(health=Health(Deadlines(seconds), folder))


@pytest.mark.ranks
@pytest.mark.parametrize("others", [0, 1])
def test_a_stopped_rank_is_named_and_ended(
    new_stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture, others: int
) -> None:
    """The only one, and one of two, whose healthy peer complains first."""
    stage = new_stage(1 + others)
    vandal = stage.start_role("vandal")
    with caplog.at_level(logging.WARNING, "hybridflow"):
        error = failing(vandal.miss_a_meeting(rank=others, how="stopped").get)
    pid = stage.pool.places[others].pid
    last = str(error).splitlines()[-1]
    assert f"failed on rank {others} (127.0.0.1): its process {pid} is stopped (SIGSTOP)" in last
    assert (error.failure.method, error.failure.kind) == ("miss_a_meeting", FailureKind.INFRA)
    assert others or f"vandal.miss_a_meeting: waiting for rank 0, whose process {pid} is stopped" in caplog.text
    assert others or 2 <= stage.supervisor.health.unseen_s() < 30, "when it was last seen to be well"
    stage.pool.close()
    psutil.wait_procs(processes(pid), timeout=5)
    assert not psutil.pid_exists(pid)


def processes(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid)] if psutil.pid_exists(pid) else []


@pytest.mark.ranks
def test_a_method_that_sleeps_has_a_deadline(
    new_stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    stage = new_stage(1, timed(3.0, tmp_path))
    vandal = stage.start_role("vandal")
    with caplog.at_level(logging.WARNING, "hybridflow"):
        error = failing(vandal.miss_a_meeting(rank=0, how="asleep").get)
    wanted = (
        r"vandal\.miss_a_meeting failed on rank 0 \(no report\): it was not done after 3 s; trainer\.call_timeout_s "
        r"gives it longer; it is in miss_a_meeting \(.*rank_functions\.py:\d+\); stacks are in .*"
    )
    assert re.fullmatch(wanted, str(error).splitlines()[-1])
    assert 3 <= stage.supervisor.health.unseen_s() < 30, "since it began to be waited for"
    assert "vandal.miss_a_meeting: waiting for rank 0 of 1 since" in caplog.text
    assert "in miss_a_meeting" in (tmp_path / "stage-0.stacks.txt").read_text()


@pytest.mark.ranks
def test_who_never_came_to_meet_is_blamed(new_stage: Callable[..., Stage], tmp_path: Path) -> None:
    """And not the rank whose wait for it came to an end first."""
    stage = new_stage(2, timed(60.0, tmp_path))
    error = failing(stage.start_role("vandal").miss_a_meeting(rank=1, how="asleep").get)
    last: Any = str(error).splitlines()[-1]
    wanted = r"vandal\.miss_a_meeting failed on rank 1 \(127\.0\.0\.1\): rank 0 waited for it in vain \(.*\): it is in "
    assert re.match(wanted, last) and "rank_functions.py" in last
