"""Does anything grow from step to step? `python -m benchmarks.growth --json growth.json [--steps 200]`

A run of PPO on addition, of tiny steps, with `benchmarks.measured_ranks` and `benchmarks.driver_memory` as plugins. For
each rank and each call, and for the driver, a line is fitted to what there was in memory after every step but the first
fifth of them, in which caches fill: Sen's slope, the median of the slopes between all pairs of steps, with its interval
of 95 % (Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968).

Claims, in KiB a step:

* `tensors`: the bytes of tensors before each call, and the most in it, do not grow: no slope's interval lies above 0.
* `own`: the memory of each process that is its own (heaps and stacks) and in use, driver and ranks, grows by at most 8.
  What malloc has `free` in its heaps, between what is in use, is reported.
* `objects` that the driver's garbage collector knows: at most 8 more, and `store`, the rows in the store between two
  steps: at most 8 KiB more. How much the run folder grows, by what is written in each step, is reported.
* `ragged`: no rows become a padded batch (`benchmarks.ragged_memory`): `wire` and `packed` are at most 1.05, `peak` at
  most 1.3.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.driver_memory import FILE
from benchmarks.measured_ranks import FOLDER
from benchmarks.ragged_memory import ragged
from benchmarks.short_runs import short_runs
from tests.forked_ranks import fork_server

SETTINGS = (
    "experiment=addition", "plugins=[benchmarks.measured_ranks, benchmarks.driver_memory]",
    "trainer.metric_sinks=[jsonl, live, driver_memory]", "actor.model.path=models/addition", "placement.device=cpu",
    "algorithm.prompts_per_step=16", "algorithm.critic_warmup_steps=0", "algorithm.policy_loss.entropy_coef=0.01",
    "trainer.validate_every=0", "trainer.validation_prompts=8", "trainer.stop_at_accuracy=null",
    "rollout.kv_cache_gib=0.05",
)  # fmt: skip
KIB = 1024
FILLING = 0.2  # share of the steps in which caches fill
MOST_OWN_KIB, MOST_OBJECTS, MOST_STORE_KIB = 8.0, 8.0, 8.0
MOST_PADDING, MOST_PEAK = 1.05, 1.3
SURE = 1.96  # standard deviations of an interval of 95 %


def sen_slope(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the slope of values by their number, and its interval of 95 %. Raises ValueError for fewer than three."""
    count = len(values)
    if count < 3:
        raise ValueError(f"{count} values have no slope with an interval; 3 are the least")
    y = np.asarray(values, dtype=np.float64)
    first, second = np.triu_indices(count, 1)
    slopes = np.sort((y[second] - y[first]) / (second - first))
    away = SURE * np.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    places = np.clip([(len(slopes) - away) / 2, (len(slopes) + away) / 2], 0, len(slopes) - 1).astype(int)
    return float(np.median(slopes)), float(slopes[places[0]]), float(slopes[places[1]])


def slope_of(values: Sequence[float], per_step: float = 1.0, unit: float = 1.0) -> dict[str, float]:
    """Return the slope a step of what was measured `per_step` times in each, in a unit, without the first fifth."""
    kept = values[int(len(values) * FILLING) :]
    slope, low, high = (round(found * per_step / unit, 4) for found in sen_slope(kept))
    return {"slope": slope, "low": low, "high": high, "last": round(values[-1] / unit, 1)}


def of_rank(lines: Sequence[Mapping[str, Any]], steps: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return by call the slopes of a rank, in KiB a step."""
    by_call = defaultdict(list)
    for line in lines:
        by_call[line["call"]].append(line)
    often = {call: found for call, found in by_call.items() if len(found) >= steps}
    return {
        call: {
            kind: slope_of([line[kind] for line in found], len(found) / steps, KIB)
            for kind in ("before", "peak", "own", "free")
        }
        for call, found in often.items()
    }


def of_driver(lines: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the slopes of the driver: KiB, and objects, a step."""
    units = {"own": KIB, "free": KIB, "objects": 1, "store": KIB, "folder": KIB}
    return {kind: slope_of([line[kind] for line in lines], 1.0, unit) for kind, unit in units.items()}


def claims(found: Mapping[str, Any]) -> dict[str, bool]:
    """Tell of each claim whether it holds."""
    calls = [call for rank in found["ranks"].values() for call in rank.values()]
    driver, rows = found["driver"], found["ragged"]
    return {
        "tensors": all(call[kind]["low"] <= 0 for call in calls for kind in ("before", "peak")),
        "own": max(call["own"]["slope"] for call in (*calls, driver)) <= MOST_OWN_KIB,
        "objects": driver["objects"]["slope"] <= MOST_OBJECTS,
        "store": driver["store"]["slope"] <= MOST_STORE_KIB,
        "ragged": max(rows["wire"], rows["packed"]) <= MOST_PADDING and rows["peak"] <= MOST_PEAK,
    }


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Read the lines of a file, each of them JSON."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def measured(steps: int, *, forked: bool) -> dict[str, Any]:
    """Make the run, and fit."""
    rows = ragged()
    server = fork_server() if forked else nullcontext({})
    with server as forks, short_runs(dict(forks)) as runs:
        folder = runs.run("train", "growth", *SETTINGS, f"trainer.steps={steps}")
        ranks = {file.stem: read_lines(file) for file in sorted((folder / FOLDER).glob("*.jsonl"))}
        driver = read_lines(folder / FILE)
    found = {
        "steps": steps,
        "ranks": {name: of_rank(lines, steps) for name, lines in ranks.items()},
        "driver": of_driver(driver),
        "ragged": rows,
    }
    return {**found, "claims": claims(found)}


def lines_of(found: Mapping[str, Any]) -> list[str]:
    """Say what was found in lines."""
    said = [f"{'':40}{'KiB a step':>12} {'95 %':>20} {'KiB at the end':>16}"]
    for name, calls in found["ranks"].items():
        for call, kinds in calls.items():
            said += [_line(f"{name} {call} {kind}", one) for kind, one in kinds.items()]
    said += [_line(f"driver {kind}", one) for kind, one in found["driver"].items()]
    said.append(f"rows: {json.dumps(found['ragged'])}")
    return [*said, *(f"{claim}: {'holds' if held else 'DOES NOT HOLD'}" for claim, held in found["claims"].items())]


def _line(name: str, one: Mapping[str, float]) -> str:
    return f"{name:46}{one['slope']:9.3f} {one['low']:10.3f} {one['high']:10.3f} {one['last']:14.1f}"


def main() -> int:
    """Measure; return 0 if the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--forked", action="store_true", help="fork ranks from a process that has imported the engines")
    options = parser.parse_args()
    found = measured(options.steps, forked=options.forked)
    print("\n".join(lines_of(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(found["claims"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
