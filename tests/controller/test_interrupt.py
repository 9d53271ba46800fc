"""Signals while a cluster starts, and as it ends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from hybridflow import interrupt
from hybridflow.controller import ResourcePool
from hybridflow.controller.slots import Slots

pytestmark = pytest.mark.usefixtures("fresh_signals")


@pytest.mark.parametrize("number", [None, *interrupt.SIGNALS])
def test_a_pool_asks_nothing_of_a_cluster_that_a_signal_may_have_ended(
    number: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`timeout` and schedulers send SIGTERM to Ray's processes too; a call on them would wait for a minute."""
    asked: list[str] = []
    monkeypatch.setattr("hybridflow.controller.slots.remove_placement_group", asked.append)
    slots: Any = object.__new__(Slots)
    slots.group = "slots"
    pool: Any = object.__new__(ResourcePool)
    pool.ranks, pool.places, pool._reserved, pool._processes = [], [], slots, None
    pool._calls = SimpleNamespace(forget_meetings=lambda: None)
    pool._supervisor = SimpleNamespace(health=SimpleNamespace(forget=lambda pool: None))
    with contextlib.suppress(KeyboardInterrupt), interrupt.heeded(), contextlib.closing(pool):
        if number is not None:
            os.kill(os.getpid(), number)
    assert asked == ([] if number else ["slots"])


IN_THE_MIDDLE = """
import os, signal, subprocess, ray
from hybridflow.controller import cluster

started = []

def start(*_, **__):
    started.append(subprocess.Popen(["sleep", "60"]))
    os.kill(os.getpid(), signal.SIGTERM)

ray._private.node.Node = start
try:
    with cluster(slots=1):
        print("started")
except KeyboardInterrupt:
    print("interrupted", started[0].wait(10))
"""


@pytest.mark.processes
def test_sigterm_while_ray_starts_is_an_interrupt() -> None:
    """Until our handler is there Ray has its own, which raises SystemExit. What it has started ends all the same."""
    ended = subprocess.run([sys.executable, "-c", IN_THE_MIDDLE], capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stdout) == (0, "interrupted -9\n"), ended.stderr
