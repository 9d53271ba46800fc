"""Rows of `benchmarks.faults`: what happens while a run recovers, to several of its processes, or for a while only."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from benchmarks.fault_endings import FAULT, LAYOUT
from benchmarks.fault_runs import Result, Row, Running, Runs, compared, is_whole, run_name

KILLED = "actor.update_actor:6:1:SIGKILL"  # in the second step
LONG_S = 45.0  # longer than Ray's services wait for an answer
SHORT_S = 1.5  # that a rank may be stopped
TOO_LONG_S = 6.0


def goes_on(
    name: str, faults: Sequence[str], failures: int, act: Callable[[Running], None] | None, runs: Runs
) -> Result:
    """Let something happen: the run goes on after so many failures, and makes what it would have made."""
    with runs.started(run_name(name), LAYOUT, faults) as running:
        if act is not None:
            act(running)
        ended = running.end()
    found = compared(ended, runs.undisturbed(LAYOUT))
    told = [line for _, line in ended.lines if "that it goes on after:" in line]
    return {
        "pass": ended.status == 0 and is_whole(found) and len(told) == failures,
        "failures": len(told),
        "status": ended.status,
        **found,
        "told": told[-1] if told else ended.last,
    }


def killed_driver(name: str, fault: str, runs: Runs) -> Result:
    """Kill the driver while it recovers: the same command makes what the run would have made."""
    with runs.started(run_name(name), LAYOUT, [KILLED, fault]) as running:
        running.wait_for_fault(1)
        running.process.kill()
        running.process.wait()
    again = runs.run(run_name(name), LAYOUT)
    found = compared(again, runs.undisturbed(LAYOUT))
    resumed = again.line("resuming from step")
    return {
        "pass": again.status == 0 and resumed is not None and is_whole(found),
        "status": again.status,
        **found,
        "told": resumed or again.last,
    }


def ranks(running: Running) -> list[int]:
    """Return the process ids of the ranks that a run has started with."""
    events = map(json.loads, (running.folder / "events.jsonl").read_text("utf-8").splitlines())
    start = next(event for event in events if event["event"] == "start")
    return [pid for _, pid in start["processes"]["main"]]


def kill_all(running: Running) -> None:
    """Kill every rank."""
    running.wait_for_fault()
    for pid in ranks(running):
        os.kill(pid, signal.SIGKILL)


def stop_rank(seconds: float, running: Running) -> None:
    """Stop a rank and let it go on: in time it does, and one that was given up is no more."""
    running.wait_for_fault()
    pid = ranks(running)[1]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def stop_driver(running: Running) -> None:
    """Stop the driver for so long that whoever waits for it could lose patience."""
    running.wait_for_fault()
    running.process.send_signal(signal.SIGSTOP)
    time.sleep(LONG_S)
    running.process.send_signal(signal.SIGCONT)


def _killed_driver(when: str, fault: str) -> Row:
    name = f"{LAYOUT}: driver SIGKILL in a recovery, {when}"
    return Row(name, partial(killed_driver, name, fault))


def _goes_on(name: str, faults: Sequence[str], failures: int, act: Callable[[Running], None] | None = None) -> Row:
    name = f"{LAYOUT}: {name}"
    return Row(name, partial(goes_on, name, faults, failures, act))


ROWS = (
    _goes_on("SIGKILL in a recovery, as a role is built", (KILLED, "actor.build:0:0:SIGKILL"), 2),
    _goes_on("SIGKILL in a recovery, as a checkpoint is loaded", (KILLED, "actor.load_checkpoint:0:1:SIGKILL"), 2),
    _goes_on("SIGSTOP in a recovery, as a role is built", (KILLED, "actor.build:0:0:SIGSTOP"), 2),
    _goes_on("SIGKILL of every rank at once", (FAULT,), 1, kill_all),
    _goes_on("a rank is stopped for a moment", (FAULT,), 0, partial(stop_rank, SHORT_S)),
    _goes_on("a rank is stopped for too long, then goes on", (FAULT,), 1, partial(stop_rank, TOO_LONG_S)),
    _goes_on("the driver is stopped for a while", (FAULT,), 0, stop_driver),
    _killed_driver("as a role is built", "actor.build:0:0:wait"),
    _killed_driver("as a checkpoint is loaded", "actor.load_checkpoint:0:1:wait"),
)
