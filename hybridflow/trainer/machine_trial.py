"""Starts what a run needs, each for some seconds: the engines' libraries, a Ray cluster, and ranks that talk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

from hybridflow.config.schema import Device
from hybridflow.controller import ResourcePool, Supervisor, cluster, cluster_gpus
from hybridflow.errors import HybridFlowError, counted
from hybridflow.parallel.layout import Layout
from hybridflow.preflight.finding import Finding, bad, ok
from hybridflow.roles.profiler import ProfilerRole
from hybridflow.runtime.rank import Rank

RANKS = 2
BYTES = 1 << 20
IMPORT_WITHIN_S = 120.0
START_WITHIN_S = 300.0
ENGINES = {"vLLM": "hybridflow.engines.vllm.engine", "Megatron": "hybridflow.engines.megatron.engine"}


def trials(say: Callable[[str], None]) -> Iterator[Finding]:
    """Yield how each trial ended.

    Args:
        say: is told what begins.
    """
    say(f"importing {' and '.join(ENGINES)}")
    with ThreadPoolExecutor(len(ENGINES)) as pool:  # each waits for a process of its own
        yield from pool.map(imported, ENGINES, ENGINES.values())
    say(f"starting Ray and {RANKS} ranks")
    yield _met()


def imported(name: str, module: str) -> Finding:
    """Import a module in a process of its own."""
    began = perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"],
            capture_output=True,
            text=True,
            timeout=IMPORT_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return bad(name, f"its import took longer than {IMPORT_WITHIN_S:.0f} s", "see what else runs, or a slow disk")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        return bad(name, f"cannot be imported: {last}", f"python -c 'import {module}' shows the rest")
    return ok(name, f"imported in {perf_counter() - began:.0f} s")


def _met() -> Finding:
    """Start a cluster and ranks, and let them sum something over their process group."""
    began = perf_counter()
    try:
        with cluster(slots=RANKS):
            ranks = min(RANKS, cluster_gpus()) or RANKS
            device = Device.gpu if cluster_gpus() else Device.cpu
            supervisor = Supervisor()
            pool = ResourcePool(
                "doctor",
                ranks,
                supervisor,
                light=False,
                device=device,
                rank_class=Rank,
                start_timeout_s=START_WITHIN_S,
            )
            try:
                profiler: Any = pool.start_role("profiler", Layout(data=ranks), interface=ProfilerRole)
                profiler.collectives("all_reduce", ranks, [BYTES]).get()
            finally:
                pool.close()
    except HybridFlowError as error:
        cause = str(error).splitlines()[-1]  # above it may be a rank's traceback
        return bad("Ray", cause, "docs/faq.md says what such a message means")
    seconds = perf_counter() - began
    return ok("Ray", f"a cluster, and {counted(ranks, 'rank')} on {device.value}s that sum, in {seconds:.0f} s")
