"""What ranks run: the workers of reward models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch.distributed as dist

from hybridflow.batch import Batch
from hybridflow.config.schema import Config, OffloadConfig
from hybridflow.engines.megatron import engine as engine_module
from hybridflow.engines.megatron.optimizer import StepResult
from hybridflow.parallel.layout import Layout
from hybridflow.workers import Context, Worker
from hybridflow.workers.model_worker import set_down
from hybridflow.workers.reward_model import GradedModelRewardWorker, ModelRewardWorker, RewardModelWorker
from tests.engines.megatron.engine_reference import Moving, in_memory

Arrays = dict[str, np.ndarray]


def context(folder: Path, layout: Layout, budget: int, loss: str = "bradley_terry") -> Context:
    """A place for either worker, with the model of this folder."""
    config = Config()
    for settings in (config.reward, config.reward_model):
        settings.model.path, settings.max_tokens_per_rank = str(folder), budget
    config.reward_model.optimizer.lr, config.algorithm.pair_loss = 3e-3, loss
    return Context(config, layout, dist.get_rank(), "reward_model")


def mine(worker: RewardModelWorker | ModelRewardWorker, batch: Batch) -> Batch:
    """The rows of this data parallel rank, the first rank having fewer."""
    at, data = worker.groups.at.dp, worker.groups.layout.data
    cuts = [0, *(len(batch) // 3 + part for part in range(data - 1)), len(batch)]
    return batch.slice(cuts[at], cuts[at + 1])


def figures(worker: RewardModelWorker) -> dict[str, float]:
    """What its last call measured, but for what depends on all that the process did before."""
    found = worker.context.metrics.result()
    assert found.pop("reward_model/memory_peak_gib") > 0
    found.pop("reward_model/tflops_per_rank", None)
    return found


def gradients(
    folder: Path, layout: Layout, pairs: Batch, budget: int, loss: str = "bradley_terry"
) -> tuple[Arrays, dict[str, float]]:
    """What an update would follow, by the names of the weights; and its metrics."""
    worker = RewardModelWorker(context(folder, layout, budget, loss))
    optimizer = worker.engine.optimizer
    assert optimizer is not None
    optimizer.step = lambda: StepResult(True, 0.0, 0.0)  # type: ignore[method-assign]
    worker.update_reward_model(mine(worker, pairs))
    for param in worker.engine.model.parameters():
        param.data.copy_(param.main_grad)  # so that what gathers weights gathers gradients
    found = {name: tensor.cpu().numpy().copy() for name, tensor in worker.engine.weights.gathered()}
    return found, worker.context.metrics.result()


def offloading(
    folder: Path, layout: Layout, pairs: Batch, weights: bool, optimizer: bool
) -> tuple[list[int], list[dict[str, float]]]:
    """Turns of a worker on a platform that moves: what memory is held after each, by kind; the metrics of each."""
    worker = offloaded_worker(folder, layout, weights, optimizer)
    held, metrics = in_memory(worker.engine), []
    with moving():
        for turn in (worker.compare, worker.update_reward_model, worker.compare, worker.update_reward_model):
            worker.context.metrics = type(worker.context.metrics)()
            turn(mine(worker, pairs))
            held += in_memory(worker.engine)
            metrics.append(figures(worker))
    return held, metrics


@contextmanager
def moving() -> Iterator[None]:
    """While it is entered, what an engine offloads leaves its memory, as it does on a GPU."""
    original = engine_module.platform
    engine_module.platform = lambda: Moving(*astuple(original()))  # type: ignore[assignment]
    try:
        yield
    finally:
        engine_module.platform = original


def offloaded_worker(folder: Path, layout: Layout, weights: bool, optimizer: bool) -> RewardModelWorker:
    """A worker whose weights, or optimizer, wait outside of its memory between calls."""
    place = context(folder, layout, 60)
    place.config.reward_model.offload = OffloadConfig(weights, optimizer)
    with moving():
        return RewardModelWorker(place)


def beside_others(folder: Path, layout: Layout, weights: bool, optimizer: bool) -> list[list[int]]:
    """What memory a worker holds, by kind, before another engine starts in its process, meanwhile and afterwards."""
    worker = offloaded_worker(folder, layout, weights, optimizer)
    held = [in_memory(worker.engine)]
    with moving():
        with set_down([worker, Worker(worker.context), worker]):
            held.append(in_memory(worker.engine))
        held.append(in_memory(worker.engine))
    return held


def after_failures(folder: Path, layout: Layout) -> list[list[int]]:
    """What memory a worker that offloads all of it holds: before, after a call that failed, after a start that did."""
    worker = offloaded_worker(folder, layout, True, True)
    held = [in_memory(worker.engine)]
    with moving():
        for block in (worker.model_loaded(learns=True), set_down([worker])):
            with suppress(RuntimeError), block:
                raise RuntimeError("in the middle of it")
            held.append(in_memory(worker.engine))
    return held


def rewards(folder: Path, layout: Layout, batch: Batch, budget: int) -> Batch:
    """`compute_reward` of this rank's rows and, beside it, `compute_baseline`."""
    worker = ModelRewardWorker(context(folder, layout, budget))
    return worker.compute_reward(mine(worker, batch)) | worker.compute_baseline(mine(worker, batch))


def graded_rewards(folder: Path, layout: Layout, batch: Batch, budget: int) -> tuple[Batch, dict[str, float]]:
    """The same of a model that is one of two graders: the other says 1 to empty responses. And the metrics."""
    known = context(folder, layout, budget)
    known.config.actor.model.path = str(folder)  # whose tokenizer decodes
    known.config.reward.worker = "model"
    known.config.reward.graders = {"reward_model": 0.5, "exact": 2.0}
    worker = GradedModelRewardWorker(known)
    rows = mine(worker, batch)
    rows |= Batch(answer=np.array([""] * len(rows), dtype=object))
    found = worker.compute_reward(rows) | worker.compute_baseline(rows)
    worker.close()
    return found, known.metrics.result()


def resumed(folder: Path, layout: Layout, pairs: Batch, saved: Path) -> tuple[list[dict[str, float]], ...]:
    """The metrics of two updates after two others: of the worker itself, and of one that takes up its checkpoint."""
    one, other = (RewardModelWorker(context(folder, layout, 60)) for _ in range(2))
    for _ in range(2):
        one.update_reward_model(mine(one, pairs))
    one.save_checkpoint(str(saved))
    other.load_checkpoint(str(saved))
    found: tuple[list[dict[str, float]], ...] = ([], [])
    for worker, metrics in zip((one, other), found, strict=True):
        for _ in range(2):
            worker.context.metrics = type(worker.context.metrics)()
            worker.update_reward_model(mine(worker, pairs))
            metrics.append(figures(worker))
    return found


def learn(folder: Path, layout: Layout, pairs: Batch, steps: int, out: Path) -> list[dict[str, float]]:
    """The metrics of comparing before and after each of so many updates; the model is left in `out`."""
    worker = RewardModelWorker(context(folder, layout, 60))
    found = []
    for step in range(steps + 1):
        worker.context.metrics = type(worker.context.metrics)()
        worker.compare(mine(worker, pairs))
        found.append(worker.context.metrics.result())
        if step < steps:
            worker.update_reward_model(mine(worker, pairs))
    worker.save_model(str(out))
    return found
