"""How does a step's time grow with rows, their length and ranks? `python -m benchmarks.scaling --json scaling.json`

Steps of PPO on addition's model, one of the three varied at a time, each with two kinds of engines:

* `framework`: with engines that compute nothing (`benchmarks.idle_engines`), so that all of the time is ours: calls,
  rows in the store, packing, grades, advantages, losses, weight sync.
* `step`: with Megatron and vLLM, over fewer points.

`exponent` is the slope of log seconds over log size, by least squares, over the points within a factor of 8 of the
largest: 1 is in proportion, and a part that is always the same makes it less. Claim: no exponent is above 1.1, so
nothing grows faster than its work. More ranks than cores take turns: over ranks the framework's time is that of all
their work.

`--plot FILE.svg` draws both over each of the three; `--only` varies some of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.scaling_plot import svg
from benchmarks.workload_rank import WorkloadRank
from hybridflow import preflight
from hybridflow.algorithms import Algorithm, StepContext, algorithms
from hybridflow.algorithms.schedule import schedules
from hybridflow.cli import model
from hybridflow.config.schema import Config
from hybridflow.registry import import_plugins
from hybridflow.tasks import Prompts
from hybridflow.trainer.build import Running, build
from hybridflow.trainer.step_rows import drawn
from hybridflow.trainer.task_rows import load_task

MOST_EXPONENT = 1.1
NEAR = 8.0  # times smaller than the largest, at most, of points that an exponent is of
WARMUP = 1
IDLE = ("plugins=[benchmarks.idle_engines]", "actor.engine=idle", "rollout.engine=idle")
LONGEST = 1024  # tokens of a row


@dataclass(frozen=True)
class Point:
    """Size of a step: rows, the tokens of a response, and ranks."""

    rows: int = 256
    tokens: int = 16
    ranks: int = 2


SIZES: dict[str, dict[str, Sequence[int]]] = {
    "framework": {
        "rows": (128, 256, 512, 1024, 2048, 4096, 8192),
        "tokens": (8, 16, 32, 64, 128, 256, 512),
        "ranks": (1, 2, 4, 8),
    },
    "step": {"rows": (64, 128, 256, 512, 1024), "tokens": (8, 16, 32, 64), "ranks": (1, 2, 4)},
}


def points(kind: str, varied: str) -> list[Point]:
    """Return the points over one of the three."""
    return [replace(Point(), **{varied: size}) for size in SIZES[kind][varied]]


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the slope of the logarithms, over the points near the largest."""
    near = [(size, taken) for size, taken in zip(sizes, seconds, strict=True) if size * NEAR >= max(sizes)]
    x, y = np.log(np.array(near)).T
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def config_of(kind: str, point: Point, folder: str) -> Config:
    """Return the settings of a step."""
    settings = (
        "experiment=addition", f"actor.model.path={folder}", f"placement.pools={{main: {point.ranks}}}",
        "actor.parallel.tensor=1", "placement.device=cpu", "algorithm.critic_warmup_steps=0",
        f"algorithm.prompts_per_step={point.rows}", f"rollout.max_response_tokens={point.tokens}",
        f"rollout.max_sequence_tokens={LONGEST}", "rollout.kv_cache_gib=0.1", "actor.max_tokens_per_rank=4096",
    )  # fmt: skip
    return preflight.load("train", [*settings, *(IDLE if kind == "framework" else ())])


def measured(kind: str, wanted: Sequence[Point], folder: str, steps: int) -> Iterator[tuple[Point, float]]:
    """Yield each point with the median seconds of its steps; those of as many ranks share one start."""
    for ranks in dict.fromkeys(point.ranks for point in wanted):
        same = [point for point in wanted if point.ranks == ranks]
        with ExitStack() as stack:
            first = config_of(kind, same[0], folder)
            import_plugins(first.plugins)
            running = build(first, stack, lambda _: None, rank_class=WorkloadRank)
            for point in same:
                seconds = _seconds(running, config_of(kind, point, folder), steps)
                print(f"  {kind}: {point.rows} rows, {point.tokens} tokens, {ranks} ranks: {seconds:.3f} s", flush=True)
                yield point, seconds


def _seconds(running: Running, config: Config, steps: int) -> float:
    ranks = [rank for pool in running.pools.values() for rank in pool.ranks]
    taking = [rank.take_up.remote(config.algorithm, config.rollout, config.actor.max_tokens_per_rank) for rank in ranks]
    running.supervisor.values(running.supervisor.ask("benchmarks", "take_up", taking))
    algorithm = algorithms.get(config.algorithm.name)(config.algorithm, running.groups, config.run.seed)
    prompts = Prompts(load_task(config), "train", config.algorithm.prompts_per_step, config.run.seed)
    taken = [_step_s(running, algorithm, config, prompts, number) for number in range(WARMUP + steps)]
    return round(median(taken[WARMUP:]), 5)


def _step_s(running: Running, algorithm: Algorithm, config: Config, prompts: Prompts, number: int) -> float:
    schedule = schedules.get(config.trainer.schedule)(algorithm, running.supervisor)
    running.supervisor.wait_all()
    began = perf_counter()
    schedule.take_step(StepContext(number, lambda: drawn(algorithm, prompts, number)))
    schedule.finish_step()
    return perf_counter() - began


def _lengthen(file: Path) -> None:
    """Let rows be as long as the longest here: positions are rotated, so no weight depends on it."""
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"max_position_embeddings": LONGEST}), "utf-8")


def curve(kind: str, varied: str, seconds: Mapping[Point, float]) -> dict[str, Any]:
    """Return what is said of one kind of engines over one of the three."""
    along = points(kind, varied)
    sizes = [getattr(point, varied) for point in along]
    taken = [seconds[point] for point in along]
    return {"sizes": sizes, "seconds": taken, "exponent": exponent(sizes, taken)}


def main() -> int:
    """Measure, write the JSON and the plot; return 0 if the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--plot", type=Path, help="where to draw it, as SVG")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each point, after one of warm-up")
    parser.add_argument("--only", nargs="+", choices=tuple(SIZES["step"]), default=tuple(SIZES["step"]))
    parser.add_argument("--engines", nargs="+", choices=tuple(SIZES), default=tuple(SIZES))
    options = parser.parse_args()
    found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "curves": {}}
    with tempfile.TemporaryDirectory(prefix="hybridflow-scaling-") as folder:
        made = f"{folder}/model"
        assert model.run(["addition", "--out", made]) == 0
        _lengthen(Path(made) / "config.json")
        for kind in options.engines:
            wanted = dict.fromkeys(point for varied in options.only for point in points(kind, varied))
            seconds = dict(measured(kind, list(wanted), made, options.steps))
            found["curves"][kind] = {varied: curve(kind, varied, seconds) for varied in options.only}
    exponents = {kind: {name: one["exponent"] for name, one in by.items()} for kind, by in found["curves"].items()}
    found["exponents"] = exponents
    found["holds"] = all(value <= MOST_EXPONENT for by in exponents.values() for value in by.values())
    print(json.dumps({"exponents": exponents, "holds": found["holds"]}))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        options.plot.write_text(svg(found["curves"]), "utf-8")
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
