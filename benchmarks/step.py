"""How much of a step is engines? `python -m benchmarks.step --json step.json`

Claim: `engine_share` = seconds that the engines need bare / seconds of a step. Bare: the same processes run the same
prompts and tokens through generate, every scoring forward, every forward and backward with its optimizer step, and the
transition of the weights, and do nothing else. A step and its bare twin take turns in one run; medians are compared.

`cpu_share` is the same in CPU seconds: of the bare engines / of everything that runs for a step, the controller and
Ray's services too. Other work on the machine moves it less.

The learning rate is 0, so that all steps are alike; that of the models is none's business here.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.asked_steps import AskedSteps
from benchmarks.cpu_seconds import cpu_seconds
from hybridflow import preflight
from hybridflow.algorithms import Algorithm
from hybridflow.batch import BatchRef
from hybridflow.cli import model
from hybridflow.observe.metrics import TIMES
from hybridflow.parallel.layout import Layout
from hybridflow.registry import import_plugins
from hybridflow.tasks import Prompts
from hybridflow.tasks.grading_guard import descendants
from hybridflow.trainer.build import Running, build
from hybridflow.trainer.task_rows import load_task

ALWAYS = ("actor.optimizer.lr=0", "critic.optimizer.lr=0", "plugins=[benchmarks.bare]")
GRPO_SMOLLM2 = (
    "experiment=smollm2", "algorithm.samples_per_prompt=8", "algorithm.policy_loss.kl_coef=0.04",
    "rollout.max_response_tokens=64",
)  # fmt: skip
CASES = {
    "ppo_addition": ("addition", ("experiment=addition", "algorithm.critic_warmup_steps=0")),
    "grpo_addition": ("addition", ("experiment=addition", "algorithm=grpo")),
    "grpo_smollm2": ("smollm2", GRPO_SMOLLM2),
}


class Taken(NamedTuple):
    """A step and its bare twin.

    Attributes:
        metrics: of the step.
        seconds, cpu: of the step; CPU seconds by who spent them.
        bare, bare_cpu: by part, seconds of the slowest rank and CPU seconds of all.
    """

    metrics: dict[str, float]
    seconds: float
    cpu: dict[str, float]
    bare: dict[str, float]
    bare_cpu: dict[str, float]


def main() -> None:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--steps", type=int, default=15, help="measured pairs, after three of warm-up")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    result = {}
    for name in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            kind, settings = CASES[name]
            model.run([kind, "--out", f"{folder}/model"])
            result[name] = measure([*settings, f"actor.model.path={folder}/model"], options.steps)
        print(json.dumps({name: result[name]}, indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(settings: list[str], steps: int, warmup: int = 3) -> dict[str, Any]:
    """Alternate steps and their bare twins."""
    config = preflight.load("train", [*settings, *ALWAYS])
    import_plugins(config.plugins)
    taken = []
    with ExitStack() as stack:
        running = build(config, stack, print)
        pool = next(iter(running.pools.values()))
        twin = pool.start_role("bare", Layout(data=pool.slots), config=config)
        prompts = Prompts(load_task(config), "train", config.algorithm.prompts_per_step, config.run.seed)
        asked = AskedSteps(running, config, prompts, warmup + steps)
        for step in range(warmup + steps):
            running.supervisor.wait_all()
            before = _cpu(running)
            rollout, metrics, seconds = asked.take(step)
            cpu = {who: spent - before[who] for who, spent in _cpu(running).items()}
            order = bare_order(running.algorithm, len(rollout))
            scores = bare_scores(running.algorithm, metrics, order)
            found = twin.step(rollout.select_columns(bare_columns(rollout)), order, scores).get()
            bare = {name: max(seconds[name] for seconds, _ in found) for name in found[0][0]}
            bare_cpu = {name: sum(spent[name] for _, spent in found) for name in found[0][1]}
            taken.append(Taken(metrics, seconds, cpu, bare, bare_cpu))
    return _result(taken[warmup:])


def bare_columns(rollout: BatchRef) -> list[str]:
    """Return the columns that engines need: tokens, and which rows begin alike."""
    return [name for name in ("prompt_ids", "response_ids", "group_id", "prefix") if name in rollout.columns]


def bare_order(algorithm: Algorithm, rows: int) -> list[list[int]]:
    """Return the rows of each minibatch. Groups stay together, so that engines can make the most of them."""
    return [part.tolist() for part in np.array_split(np.arange(rows), algorithm.config.minibatches)]


def bare_scores(algorithm: Algorithm, metrics: dict[str, float], order: list[list[int]]) -> dict[str, list[int]]:
    """Return by role the rows that it must score before the updates: what the step leaves out, its twin leaves out."""
    calls = {"actor": "compute_log_prob", "reference": "compute_ref_log_prob", "critic": "compute_values"}
    scores = {role: [*chain.from_iterable(order)] for role, call in calls.items() if TIMES + call in metrics}
    if "actor" in scores and algorithm.first_update_scores:
        scores["actor"] = [*chain.from_iterable(order[1:])]
    return scores


def _cpu(running: Running) -> dict[str, float]:
    """Return the CPU seconds so far of this process, of the ranks, and of all else that it has started."""
    own = os.getpid()
    ranks = {pid for places in running.processes().values() for _, pid in places}
    others = set(descendants(own)) - ranks
    return {
        "controller": cpu_seconds(own),
        "ranks": sum(map(cpu_seconds, ranks)),
        "ray_and_graders": sum(map(cpu_seconds, others)),
    }


def _result(taken: list[Taken]) -> dict[str, Any]:
    ratios = [sum(one.bare.values()) / one.seconds for one in taken]
    cpu_ratios = [sum(one.bare_cpu.values()) / sum(one.cpu.values()) for one in taken]
    timed = sorted({name for one in taken for name in one.metrics if name.startswith(TIMES)})
    return {
        "engine_share": _median(ratios),
        "engine_share_min_max": [round(min(ratios), 4), round(max(ratios), 4)],
        "cpu_share": _median(cpu_ratios),
        "step_s": _median([one.seconds for one in taken]),
        "step_cpu_s": {who: _median([one.cpu[who] for one in taken]) for who in taken[0].cpu},
        "bare_engine_s": {name: _median([one.bare[name] for one in taken]) for name in taken[0].bare},
        "bare_engine_cpu_s": {name: _median([one.bare_cpu[name] for one in taken]) for name in taken[0].bare_cpu},
        "timings_s": {
            name.removeprefix(TIMES): _median([one.metrics.get(name, 0.0) for one in taken]) for name in timed
        },
        "steps": len(taken),
    }


def _median(values: list[float]) -> float:
    return round(median(values), 4)


if __name__ == "__main__":
    main()
