"""Real steps, timed: every workload of a model on every variant, with as few starts as these need."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.prediction_workloads import Start, Variant, Workload, config_of
from benchmarks.workload_rank import WorkloadRank
from hybridflow.algorithms import Algorithm, StepContext, algorithms
from hybridflow.algorithms.schedule import schedules
from hybridflow.config.schema import Config
from hybridflow.registry import import_plugins
from hybridflow.tasks import Prompts
from hybridflow.trainer.build import Running, build
from hybridflow.trainer.step_rows import drawn
from hybridflow.trainer.task_rows import load_task

WARMUP = 1
_QUANTILES = (np.arange(16) + 0.5) / 16


def measured(
    start: Start, workloads: list[Workload], steps: int, *, backwards: bool = False
) -> Iterator[dict[str, Any]]:
    """Start the processes, and yield a record for each variant and workload that they serve, perhaps backwards."""
    way = -1 if backwards else 1
    with tempfile.TemporaryDirectory(prefix="hybridflow-prediction-") as name, ExitStack() as stack:
        folder = start.model.write(Path(name) / "model")
        first = config_of(workloads[0], start.variants[0], folder)
        import_plugins(first.plugins)
        began = perf_counter()
        running = build(first, stack, lambda _: None, rank_class=WorkloadRank)
        print(f"{start.model.name}: {', '.join(v.name for v in start.variants)}: "
              f"started in {perf_counter() - began:.0f} s", flush=True)  # fmt: skip
        for variant in start.variants[::way]:
            for workload in workloads[::way]:
                yield _record(running, workload, variant, config_of(workload, variant, folder), steps)


def joined(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a record of several rounds' records of the same steps: the median of all steps, and of rounds' phases."""
    names = sorted({name for one in rounds for name in one["phases_s"]})
    lengths = [length for one in rounds for length in one["response_tokens"]]
    return {
        **{name: value for name, value in rounds[0].items() if name != "steps_s"},
        "step_s": round(median(step for one in rounds for step in one["steps_s"]), 5),
        "rounds_s": [one["steps_s"] for one in rounds],
        "phases_s": {name: round(median(one["phases_s"].get(name, 0.0) for one in rounds), 5) for name in names},
        "response_tokens": np.quantile(lengths, _QUANTILES).round(1).tolist(),
    }


def _record(running: Running, workload: Workload, variant: Variant, config: Config, steps: int) -> dict[str, Any]:
    ranks = [rank for pool in running.pools.values() for rank in pool.ranks]
    taking_up = [
        rank.take_up.remote(config.algorithm, config.rollout, config.actor.max_tokens_per_rank) for rank in ranks
    ]
    running.supervisor.values(running.supervisor.ask("benchmarks", "take_up", taking_up))
    algorithm = algorithms.get(config.algorithm.name)(config.algorithm, running.groups, config.run.seed)
    prompts = Prompts(load_task(config), "train", config.algorithm.prompts_per_step, config.run.seed)
    taken = [_step(running, algorithm, config, prompts, number) for number in range(WARMUP + steps)][WARMUP:]
    names = sorted({name for one in taken for name in one["phases"]})
    lengths = np.concatenate([one["lengths"] for one in taken])
    record = {
        "model": workload.model.name,
        "workload": workload.name,
        "variant": variant.name,
        "step_s": round(median(one["step_s"] for one in taken), 5),
        "steps_s": [round(one["step_s"], 5) for one in taken],
        "phases_s": {name: round(median(one["phases"].get(name, 0.0) for one in taken), 5) for name in names},
        "shares_prompts": True,
        "response_tokens": np.quantile(lengths, _QUANTILES).round(1).tolist(),
    }
    print(f"  {workload.name:26} {variant.name:34} {record['step_s']:.3f} s", flush=True)
    return record


def _step(running: Running, algorithm: Algorithm, config: Config, prompts: Prompts, number: int) -> dict[str, Any]:
    """Take a step as the trainer does, with nothing under way before and after it."""
    schedule = schedules.get(config.trainer.schedule)(algorithm, running.supervisor)
    running.supervisor.wait_all()
    began = perf_counter()
    rollout = schedule.take_step(StepContext(number, lambda: drawn(algorithm, prompts, number)))
    metrics = schedule.finish_step()
    seconds = perf_counter() - began
    phases = {key.removeprefix("timing_s/"): value for key, value in metrics.items() if key.startswith("timing_s/")}
    return {"step_s": seconds, "phases": phases, "lengths": rollout.lengths("response_ids")}
