"""How long does the search take, and is there anything cheaper? `python -m benchmarks.search_scale --json scale.json`

PPO with four models of 70B (actor, critic, reference, reward model) on nodes of 8 A100. `seconds` is the search by
number of devices, to the best placement of all 52 ways to colocate four roles and generation; `gap` how far it can be
from the optimum at most, by a mixed-integer program that HiGHS solves, whose own time is `bound_s`. `exhaustive` looks
at every placement of small models on few devices, one by one: there the gap is to what is cheapest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.models import LLAMA_70B
from hybridflow.config.schema import DType
from hybridflow.models import Head, ModelShape
from hybridflow.observe import terminal
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import FlowCall, RoleModel, RunSpec, Work
from hybridflow.planning.search.device_mapping import map_devices, pool_sizes
from hybridflow.planning.search.exhaustive import cheapest
from hybridflow.planning.search.placement_search import PlacementSearch
from hybridflow.planning.search.simulated_costs import SimulatedCosts
from hybridflow.tasks.reading_progress import ReadingProgress

SMALL = ModelShape("llama", 8, 2048, 5632, 16, 4, 128, 32000, False, False, 1e-5, 1e4, 4096)
DEVICES = (128, 1024, 8192)
EXHAUSTIVE = ((4, 24.0), (8, 14.0), (16, 10.0))  # devices, and GiB of each
BOUND_S = 60.0  # of all ways to colocate the roles together
ROWS = 1024
MINIBATCHES = 4


def ppo_of(shape: ModelShape, rows: int = ROWS) -> RunSpec:
    """Return a step of PPO whose four roles have models of one shape, with responses of up to 1,024 tokens."""
    trained = RoleModel(shape, DType.bfloat16, True, sharded_optimizer=True, sequence=True, max_tokens_per_rank=8192)
    frozen = replace(trained, trains=False)
    scored = (("reference", "compute_ref_log_prob", True), ("reward", "compute_reward", True))
    learned = (("actor", "compute_log_prob", False), ("critic", "compute_values", False))
    flow = [FlowCall("actor", "generate_sequences", Work.generate, True, rows)]
    flow += [FlowCall(role, method, Work.score, samples, rows, (0,)) for role, method, samples in scored + learned]
    flow += [FlowCall("actor", "compute_advantage", Work.rows, False, rows, (1, 2, 3, 4))]
    updates = (("critic", "update_critic"), ("actor", "update_actor"))
    flow += [
        FlowCall(role, method, Work.train, False, rows // MINIBATCHES, (5,))
        for _ in range(MINIBATCHES)
        for role, method in updates
    ]
    models = {
        "actor": trained,
        "critic": replace(trained, head=Head.value),
        "reference": frozen,
        "reward": replace(frozen, head=Head.reward),
    }
    responses = Lengths(tuple(200.0 + 824.0 * at / 63 for at in range(64)))
    return RunSpec(tuple(flow), models, rows, 1, Lengths((1024.0,)), responses, 1024, "sync", {}, 256, 0.0, 0.6)


def searched(devices: int) -> dict[str, Any]:
    """Search for a placement of four models of 70B; return the seconds of it and of the bound, the gap and the best."""
    clock = Clock(devices)
    found = map_devices(
        ppo_of(LLAMA_70B), read_hardware("a100_80g_8x"), devices, simulated=3, bound_s=BOUND_S, progress=clock
    )
    whole, bound = clock.whole(), clock.begun[SIMULATED] - clock.begun[BOUNDS]
    return {
        "seconds": whole - bound,
        "bound_s": bound,
        "gap": found.gap,
        "plans": found.looked_at,
        "fit": len(found.found),
        "sets": found.best.found.candidate.sets,
        "devices": found.best.found.devices,
        "step_s": found.best.step.seconds.mean,
    }


BOUNDS = "bounds"
SIMULATED = "simulated steps, sync"


class Clock:
    """Says how far a search is, and knows when each of its parts began."""

    def __init__(self, devices: int) -> None:
        self.begun: dict[str, float] = {}
        self._devices = devices
        self._start = perf_counter()
        self._told: dict[str, ReadingProgress] = {}

    def whole(self) -> float:
        """Return the seconds so far."""
        return perf_counter() - self._start

    def __call__(self, what: str, done: int, of: int) -> None:
        self.begun.setdefault(what, perf_counter())
        self._told.setdefault(what, ReadingProgress(f"{self._devices} devices: {what}", of)).at(done)


def exhaustive_gap(devices: int, gib: float) -> dict[str, Any]:
    """Look at every placement of four small models; return how much more the best that is found takes than the best."""
    spec = ppo_of(SMALL, rows=64)
    hardware = replace(read_hardware("a100_80g_8x"), memory_bytes=gib * 2**30)
    made = (SimulatedCosts(spec, hardware, budgets=(1.0,), fractions=(), prunes=prunes) for prunes in (True, False))
    search, every = (
        PlacementSearch(spec.flow, tuple(spec.models), costs, devices, pool_sizes(devices, 8)) for costs in made
    )
    gaps = []
    for candidate in search.candidates(overlaps=True):
        found, truth = search.best(candidate), cheapest(every, candidate)
        assert (found is None) == (truth is None), candidate
        if found is not None and truth is not None:
            gaps.append(found.seconds / truth.seconds - 1)
    return {"devices": devices, "candidates": len(gaps), "gap": max(map(abs, gaps))}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="*", default=list(DEVICES), metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    measured = {
        "searched": {str(devices): searched(devices) for devices in options.devices},
        "exhaustive": [exhaustive_gap(devices, gib) for devices, gib in EXHAUSTIVE],
    }
    text = json.dumps(measured, indent=2)
    if options.json:
        options.json.write_text(text + "\n", "utf-8")
    terminal.say(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
