"""Plugin with parts as users write them, which `benchmarks.faults` lets fail."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fault_plugin import happens_now, mark_of
from hybridflow import algorithms, dispatch
from hybridflow.algorithms.ppo import PPO
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.observe.sinks import MetricSink, SinkContext, metric_sinks
from hybridflow.roles import Role, roles
from hybridflow.tasks import Example, tasks
from hybridflow.tasks.addition import Addition
from hybridflow.workers import Worker, workers
from hybridflow.workers.reward import RewardWorker
from hybridflow.workers.worker import Context

THIRD = 2  # call, from 0
BALLAST = 2**20  # numbers of a row, of 4 bytes each


@workers.register("sleepy")
class Sleepy(RewardWorker):
    """A worker that once, on rank 1, does not come back: it waits for a service that is gone, say."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._calls = 0

    def compute_reward(self, rollout: Batch) -> Batch:
        self._calls += 1
        if self._calls > THIRD and self.context.rank == 1 and happens_now():
            time.sleep(3600)
        return super().compute_reward(rollout)


@roles.register("ballast")
class Ballast(Role[Any], Worker):
    """Gives rows a column that is large, as images are, and reads it again."""

    @dispatch.using("dp_proto", needs=["response_ids"], gives={"ballast": "ragged float"})
    def load(self, rollout: Batch) -> Batch:
        """Load them."""
        lengths = rollout.ragged("response_ids").lengths
        return Batch(ballast=Ragged.of([np.full(BALLAST, length, dtype=np.float32) for length in lengths]))

    @dispatch.using("dp_proto", needs=["ballast"], gives={"load": "float"})
    def weigh(self, rollout: Batch) -> Batch:
        """Return what they carry."""
        return Batch(load=np.array([row.mean() for row in rollout.ragged("ballast")], dtype=np.float32))


@algorithms.register("ppo_with_ballast")
class PPOWithBallast(PPO):
    """PPO whose rows carry a large column for as long as a step takes."""

    roles = (*PPO.roles, "ballast")
    ballast: Any

    def learn(self, rollout: BatchRef) -> BatchRef:
        loaded = rollout | self.ballast.load(rollout)
        rollout = super().learn(rollout)
        return rollout | self.ballast.weigh(loaded)


@tasks.register("sums_of_a_server")
class SumsOfAServer(Addition):
    """Sums from a server whose rows have no answer any more, once the fault has happened."""

    def example(self, split: str, index: int) -> Example:
        row = vars(super().example(split, index))
        if Path(mark_of(0)).exists():
            row = {"prompt": row["prompt"]}
        return Example(row["prompt"], row["answer"], row["sample_id"])


@metric_sinks.register("http")
class HttpSink(MetricSink):
    """Sends metrics to a server, and waits for as long as it takes."""

    def __init__(self, context: SinkContext, url: str = "") -> None:
        super().__init__(context)
        self._url = url

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        data = json.dumps({"step": step, **metrics}).encode()
        with urllib.request.urlopen(urllib.request.Request(self._url, data)) as answer:
            answer.read()
