"""Rows of `benchmarks.faults`: a run is told to stop, or loses its cluster; the same command then goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

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
from hybridflow.tasks.grading_guard import descendants

FAULT = "actor.update_actor:6:1:wait"  # in the second step
LAYOUT = "colocated"


def ended_and_resumed(
    name: str, act: Callable[[Running], None], status: int, told: Sequence[str], runs: Runs
) -> Result:  # fmt: skip
    """Let something end the run in its second step; the same command then makes what it would have made.

    Args:
        status: that it must end with.
        told: words that its last line must have, each of them.
    """
    with runs.started(run_name(name), LAYOUT, [FAULT]) as running:
        at = running.wait_for_fault()
        act(running)
        ended = running.end(limit_s=90)
    resumed = runs.run(run_name(name), LAYOUT)
    found = compared(resumed, runs.undisturbed(LAYOUT))
    ends_s = seconds_between(at, ended.at)
    well = ended.status == status and all(words in ended.last for words in told) and not ended.first("Traceback")
    goes_on = resumed.status == 0 and resumed.first("resuming from step") is not None and is_whole(found)
    return {
        "pass": well and goes_on and ends_s is not None and ends_s <= WITHIN_S,
        "detect_s": seconds_between(at, _first_word(ended, told[0])),
        "ends_s": ends_s,
        "status": ended.status,
        "resumed_status": resumed.status,
        **found,
        "told": ended.last,
    }


def _first_word(ended: Ended, told: str) -> float | None:
    """Return when the run first spoke of what happened to it."""
    interrupted = ended.first("interrupted by")
    return interrupted if interrupted is not None else ended.first(told)


def to_driver(running: Running) -> None:
    """Send SIGTERM to the driver."""
    running.process.send_signal(signal.SIGTERM)


def to_group(running: Running) -> None:
    """Send SIGTERM to every process of the run's group, as `timeout` does."""
    os.killpg(running.process.pid, signal.SIGTERM)


def to_group_again(running: Running) -> None:
    """Send SIGTERM to every process of the run's group, and again as it takes down what it has started."""
    to_group(running)
    running.wait_for_line("saved step 2")
    for _ in range(20):
        to_group(running)
        time.sleep(0.1)


def ctrl_c(running: Running) -> None:
    """Press Ctrl-C, and again until it has ended: the second ends the step, the others nothing."""
    while running.process.poll() is None:
        running.process.send_signal(signal.SIGINT)
        time.sleep(0.3)


def to_service(program: str, number: signal.Signals, running: Running) -> None:
    """Send a signal to a service of the run's cluster."""
    for pid in descendants(running.process.pid):
        if Path(f"/proc/{pid}/comm").read_text().strip() == program:
            os.kill(pid, number)
            return
    raise AssertionError(f"the run has no process {program}")


def _lost_service(program: str, number: signal.Signals, said: str) -> Row:
    name = f"{LAYOUT}: {number.name} of {program}"
    told = (f"{program} (process ", f") {said}")
    act = partial(to_service, program, number)
    return Row(name, partial(ended_and_resumed, name, act, 1, told))


def _told_to_stop(how: str, act: Callable[[Running], None], status: int = 75) -> Row:
    name = f"{LAYOUT}: {how}"
    return Row(name, partial(ended_and_resumed, name, act, status, ("this goes on from there: ",)))


ROWS = (
    _told_to_stop("SIGTERM to the driver", to_driver),
    _told_to_stop("SIGTERM to every process", to_group),
    _told_to_stop("SIGTERM to every process, many times", to_group_again),
    _told_to_stop("Ctrl-C, many times", ctrl_c, 130),
    _lost_service("gcs_server", signal.SIGKILL, "has ended"),
    _lost_service("raylet", signal.SIGKILL, "has ended"),
    _lost_service("gcs_server", signal.SIGSTOP, "is stopped"),
    _lost_service("raylet", signal.SIGSTOP, "is stopped"),
)
