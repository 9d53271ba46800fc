"""A program for tests: an actor of 4 ranks takes steps on two nodes of a cluster, and then on one.

It prints one JSON object a placement: by rank its node, its place in training and in generation (replica, stage, tensor
rank), and what each step measured.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from ray.cluster_utils import Cluster

from hybridflow import preflight
from hybridflow.algorithms.schedule import StepContext, schedules
from hybridflow.controller import put
from hybridflow.controller.ray_start import agents_that_end
from hybridflow.tasks import Prompts
from hybridflow.trainer.build import build
from hybridflow.trainer.task_rows import load_task

HERE = {"node_ip_address": "127.0.0.1"}
SIZES = (
    "actor.parallel.tensor=2", "actor.parallel.pipeline=2", "algorithm.prompts_per_step=16", "algorithm=grpo",
    "algorithm.critic_warmup_steps=0", "algorithm.policy_loss.kl_coef=0",
    "algorithm.policy_loss.entropy_coef=0.01",  # grades of a random model are all 0: what it learns is to be random
    "rollout.max_concurrent_rows=64",
)  # fmt: skip
WIDE = ("rollout.parallel.tensor=2", "rollout.parallel.pipeline=2")
STEPS = 2


def steps(overrides: Sequence[str]) -> dict[str, Any]:
    """Take steps; return where ranks were, and what was measured but times."""
    config = preflight.load("train", ["experiment=addition", *SIZES, *overrides])
    measured = []
    with ExitStack() as stack:
        running = build(config, stack, lambda line: print(line, file=sys.stderr))
        prompts = Prompts(load_task(config), "train", config.algorithm.prompts_per_step, config.run.seed)
        schedule = schedules.get(config.trainer.schedule)(running.algorithm, running.supervisor)
        for step in range(STEPS):
            given = put(prompts.batch(step))
            schedule.take_step(StepContext(step, lambda given=given: given))  # type: ignore[misc]
            metrics = schedule.finish_step()
            kept = [name for name in metrics if re.match(r"(actor|reward)/(?!memory|tflops|mfu)", name)]
            measured.append({name: metrics[name] for name in kept})
        layout = running.placement.role("actor").layout
        places = [place.node for place in running.pools["main"].places]
        training = [(at.dp, at.pp, at.tp) for at in layout.coordinates]
        generating = [(at.dp, at.pp, at.tp) for at in layout.generation_coordinates]
    return {"ranks": places, "training": training, "generating": generating, "steps": measured}


def main() -> None:
    model = f"actor.model.path={sys.argv[1]}"
    with agents_that_end(local=True):
        cluster = Cluster(initialize_head=True, head_node_args={**HERE, "num_cpus": 0})
        for _ in range(2):
            cluster.add_node(**HERE, num_cpus=2)
    for more in (
        [f"ray.address={cluster.address}", "placement.pools.main={nodes: 2, slots: 2}"],
        [f"ray.address={cluster.address}", "placement.pools.main=auto", *WIDE],
        ["placement.pools.main=4"],
    ):
        print(json.dumps(steps([model, *more])), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # what Ray has left of the cluster ends with its reaper
