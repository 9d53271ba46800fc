"""How much of a PPO step is engines? `python -m benchmarks.step --json step.json`

Claim: `engine_share` = seconds that the engines need bare / seconds of a step. Bare: the same processes run the same
prompts and tokens through generate, every scoring forward, every forward and backward with its optimizer step, and the
transition of the weights, and do nothing else. A step and its bare twin take turns in one run; medians are compared.
The model is the one of experiment=addition (its shape and its sizes; the weights do not matter for the time).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from hybridflow import preflight
from hybridflow.algorithms import StepContext
from hybridflow.algorithms.schedule import schedules
from hybridflow.cli import model
from hybridflow.controller import put
from hybridflow.parallel.layout import Layout
from hybridflow.registry import import_plugins
from hybridflow.tasks import Prompts
from hybridflow.trainer.build import build
from hybridflow.trainer.task_rows import load_task


def main() -> None:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--steps", type=int, default=15, help="measured pairs, after three of warm-up")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model.run(["addition", "--out", f"{folder}/model"])
        result = measure(f"{folder}/model", options.steps)
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(folder: str, steps: int, warmup: int = 3) -> dict[str, Any]:
    """Alternate steps and their bare twins."""
    overrides = ["experiment=addition", f"actor.model.path={folder}", "algorithm.critic_warmup_steps=0"]
    config = preflight.load("train", [*overrides, "plugins=[benchmarks.bare]"])
    import_plugins(config.plugins)
    whole: list[float] = []
    parts: list[dict[str, float]] = []
    bare: list[dict[str, float]] = []
    with ExitStack() as stack:
        running = build(config, stack, print)
        pool = next(iter(running.pools.values()))
        twin = pool.start_role("bare", Layout(data=pool.slots), config=config)
        prompts = Prompts(load_task(config), "train", config.algorithm.prompts_per_step, config.run.seed)
        schedule = schedules.get(config.trainer.schedule)(running.algorithm, running.supervisor)
        for step in range(warmup + steps):
            running.supervisor.wait_all()
            start = perf_counter()
            given = put(prompts.batch(step))
            rollout = schedule.take_step(StepContext(step, lambda given=given: given))
            metrics = schedule.finish_step()
            whole.append(perf_counter() - start)
            parts.append({name: value for name, value in metrics.items() if name.startswith("timing_s/")})
            order = np.array_split(np.random.default_rng(step).permutation(len(rollout)), config.algorithm.minibatches)
            found = twin.step(
                rollout.select_columns(["prompt_ids", "response_ids"]), [rows.tolist() for rows in order]
            ).get()
            bare.append({name: max(rank[name] for rank in found) for name in found[0]})
    return _result(whole[warmup:], parts[warmup:], bare[warmup:])


def _result(whole: list[float], parts: list[dict[str, float]], bare: list[dict[str, float]]) -> dict[str, Any]:
    ratios = [sum(b.values()) / w for b, w in zip(bare, whole, strict=True)]
    calls = ("sync_weights", "generate_sequences", "compute_log_prob", "compute_ref_log_prob", "compute_values",
             "compute_reward", "compute_advantage", "update_actor", "update_critic")  # fmt: skip
    on_ranks = {name: median(p[f"timing_s/{name}"] for p in parts) for name in calls}
    return {
        "engine_share": round(median(ratios), 4),
        "engine_share_min_max": [round(min(ratios), 4), round(max(ratios), 4)],
        "step_s": round(median(whole), 4),
        "bare_engine_s": {name: round(median(b[name] for b in bare), 4) for name in bare[0]},
        "calls_on_ranks_s": {name: round(seconds, 4) for name, seconds in on_ranks.items()},
        "outside_calls_s": round(median(whole) - sum(on_ranks.values()), 4),
        "steps": len(whole),
    }


if __name__ == "__main__":
    main()
