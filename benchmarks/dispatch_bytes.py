"""The bytes that calls move; see `benchmarks.dispatch`."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks import pulls as pulled
from benchmarks.driver_bytes import counted
from hybridflow import preflight
from hybridflow.algorithms import StepContext
from hybridflow.algorithms.schedule import schedules
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.cli import model
from hybridflow.controller import put
from hybridflow.dispatch import Call, protocols
from hybridflow.parallel.layout import Layout
from hybridflow.tasks import Prompts
from hybridflow.trainer.build import build
from hybridflow.trainer.task_rows import load_task

STEPS = 20


def driver() -> dict[str, Any]:
    """20 steps of the addition PPO."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model.run(["addition", "--out", f"{folder}/model"])
        config = preflight.load("train", ["experiment=addition", f"actor.model.path={folder}/model"])
        running = build(config, stack, print)
        prompts = Prompts(load_task(config), "train", config.algorithm.prompts_per_step, config.run.seed)
        schedule = schedules.get(config.trainer.schedule)(running.algorithm, running.supervisor)
        with counted() as found:
            for step in range(STEPS):
                given = put(prompts.batch(step))
                schedule.take_step(StepContext(step, lambda given=given: given))
                schedule.finish_step()
    assert found.reports, "nothing was counted"
    return {
        "driver_tensor_bytes": found.tensors,
        "driver_metadata_bytes_a_step": found.lengths // STEPS,
        "driver_reports_a_step": found.reports // STEPS,
    }


def pulls() -> dict[str, Any]:
    """On one node and on two."""
    return {"pull_amplification": {"one_node": pulled.on_one_node(), "two_nodes": pulled.on_two_nodes()}}


def balance(seeds: int = 20, parts: int = 8) -> dict[str, Any]:
    """Return the heaviest part's tokens / the mean."""
    found: dict[str, list[float]] = {"dp_tokens": [], "3d_proto": []}
    layout = Layout(data=parts)
    for seed in range(seeds):
        lengths = np.minimum(np.random.default_rng(seed).lognormal(5.0, 1.0, 512), 4096).astype(int)
        rows = BatchRef.from_local(Batch(response_ids=Ragged.of([np.zeros(n, np.int32) for n in lengths])))
        for name, ratios in found.items():
            calls = protocols.get(name)().distribute(layout, Call((rows,)))
            tokens = [call.args[0].tokens().sum() for call in calls if call is not None]
            ratios.append(max(tokens) / np.mean(tokens))
    return {
        "balance": round(float(np.mean(found["dp_tokens"])), 6),
        "balance_by_count": round(float(np.mean(found["3d_proto"])), 4),
    }
