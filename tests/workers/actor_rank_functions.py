"""What ranks run: the actor's generation, one worker a layout, kept, because vLLM takes seconds to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from hybridflow.batch import Batch, concat
from hybridflow.config.schema import Config, EnvironmentConfig
from hybridflow.engines.sampling import FinishedRow, Sampling
from hybridflow.engines.vllm import engine as engine_module
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout
from hybridflow.placement import engines_of
from hybridflow.workers import Context
from hybridflow.workers.actor import ActorWorker
from hybridflow.workers.generation_worker import make_loop
from hybridflow.workers.rollout_loop import RolloutLoop
from tests.environments import child_environments  # noqa: F401  registers the environments

_workers: dict[tuple[Path, Layout], ActorWorker] = {}


def actor(folder: Path, layout: Layout) -> ActorWorker:
    """The worker of this model and layout, as in a new call."""
    if (folder, layout) not in _workers:
        config = Config()
        config.actor.model.path = str(folder)
        config.actor.optimizer.lr = 1e-3
        rollout = config.rollout
        rollout.max_sequence_tokens, rollout.max_response_tokens = 200, 12
        rollout.max_concurrent_rows, rollout.kv_cache_gib, rollout.gpu_memory_fraction = 64, 0.1, 0.1
        _workers[folder, layout] = ActorWorker(
            Context(config, layout, dist.get_rank(), "actor", engines=engines_of(config, "actor"))
        )
    worker = _workers[folder, layout]
    worker.context.metrics = Metrics()
    worker.context.drawn.clear()
    return worker


def generate(
    folder: Path, layout: Layout, prompts: Batch, step: int = 0, **sampling: Any
) -> tuple[Batch, dict[str, float]]:
    """`generate_sequences` of the rows of this rank's replica, and what it measured."""
    worker, at = actor(folder, layout), layout.generation_coordinate(dist.get_rank())
    replicas = layout.size // int(np.prod(layout.generation_sizes))
    mine = prompts.select(np.array_split(np.arange(len(prompts)), replicas)[at.dp])
    found = worker.generate_sequences(mine, step=step, **sampling)
    return found, dict(worker.context.metrics)


def compiled() -> dict[str, int]:
    """What torch.compile has looked at in this process."""
    from torch._dynamo.utils import counters

    return dict(counters["frames"])


def stream(folder: Path, prompts: Batch, **sampling: Any) -> tuple[list[tuple[np.ndarray, Batch]], dict[str, float]]:
    """`stream_sequences` on one rank, and what it measured."""
    worker = actor(folder, Layout())
    return list(worker.stream_sequences(prompts, **sampling)), dict(worker.context.metrics)


def sleeping() -> tuple[list[str], list[str], set[str], bool]:
    """What vLLM calls by the names that the platform uses: of arguments, of parts; and of its setting."""
    from vllm import LLM, EngineArgs
    from vllm.v1.executor.abstract import SLEEP_TAGS

    sleep, wake = (list(signature(method).parameters) for method in (LLM.sleep, LLM.wake_up))
    return sleep, wake, set(SLEEP_TAGS), hasattr(EngineArgs, "enable_sleep_mode")


def lag(folder: Path, rollout: Batch) -> dict[str, float]:
    """What `compute_log_prob` says of the versions that sampled these rows."""
    worker = actor(folder, Layout())
    worker.compute_log_prob(rollout)
    return {name: value for name, value in worker.context.metrics.items() if "version_lag" in name}


def apart(folder: Path, rollout: Batch) -> float:
    """How far the log-probs of training are from those of sampling, at most."""
    worker = actor(folder, Layout())
    worker.compute_log_prob(rollout)
    return dict(worker.context.metrics)["actor/rollout_log_prob_diff_max"]


def log_probs(folder: Path, rollout: Batch) -> np.ndarray:
    """Training's, of the response tokens."""
    score = actor(folder, Layout()).engine.score(rollout)
    assert score is not None
    return score["log_probs"].values


def learn(folder: Path, rollout: Batch) -> None:
    """One step."""
    actor(folder, Layout()).update_supervised(rollout)


def streamed(folder: Path, prompts: Batch, take: int | None = None) -> tuple[list[FinishedRow], int]:
    """The first `take` rows that finish, or all; and how many requests vLLM has left over when the stream is closed."""
    worker = actor(folder, Layout())
    worker.refit(worker.generator, worker.version)
    generator = worker.generator
    stream = generator.stream(prompts.ragged("prompt_ids"), Sampling(2.0, max_tokens=12), list(range(len(prompts))))
    rows = [row for row, _ in zip(chain.from_iterable(stream), range(take or len(prompts)), strict=False)]
    stream.close()  # type: ignore[attr-defined]
    return rows, generator._llm.llm_engine.get_num_unfinished_requests()


def interrupted(folder: Path, prompts: Batch) -> list[str]:
    """What the engine says to weights, to sleep and to another stream while the rows of one are under way."""
    worker, said = actor(folder, Layout()), []
    worker.refit(worker.generator, worker.version)
    generator, tokens, seeds = worker.generator, prompts.ragged("prompt_ids"), list(range(len(prompts)))
    stream = generator.stream(tokens, Sampling(2.0, max_tokens=12), seeds)
    first = next(stream)
    tries: tuple[Callable[[], object], ...] = (
        lambda: generator.update_weights(iter(()), 99),
        generator.sleep,
        lambda: generator.generate(tokens, Sampling(), seeds),
    )
    for attempt in tries:
        try:
            attempt()
        except RuntimeError as error:
            said.append(str(error))
    assert generator.version == worker.version, "the weights are still good"
    assert len(list(chain.from_iterable(stream))) == len(prompts) - len(first)
    return said


@contextmanager
def watched(worker: ActorWorker, *, forgets: bool) -> Iterator[list[str]]:
    """What happens to the memory, weights and rows of a worker's generation, in order.

    Args:
        forgets: it sleeps as on a GPU.
    """
    said: list[str] = []
    originals = engine_module.fall_asleep, engine_module.wake
    if forgets:  # as on a GPU, which takes the engine's memory
        engine_module.fall_asleep = lambda llm: said.append("sleep") is None
        engine_module.wake = lambda llm, part: said.append(f"wake {part}")
    update, stream = worker.generator.update_weights, worker.generator.stream
    worker.generator.update_weights = lambda shards, version, **rest: update(noted(shards, "shard"), version, **rest)  # type: ignore[method-assign]
    worker.generator.stream = lambda *args: noted(stream(*args), "row")  # type: ignore[method-assign]

    def noted(things: Iterator[Any], name: str) -> Iterator[Any]:
        for thing in things:
            said.append(name)
            yield thing

    try:
        yield said
    finally:
        engine_module.fall_asleep, engine_module.wake = originals
        del worker.generator.update_weights, worker.generator.stream


def orders(folder: Path, prompts: Batch, *calls: str, forgets: bool) -> tuple[list[list[str]], list[int]]:
    """Of each of these calls what happened in it, in order, after a step; and how old the weights were that sampled.

    Args:
        calls: `generate_sequences`, `sync_weights`, `compute_log_prob` or `learn`.
    """
    worker, found, ages = actor(folder, Layout()), list[list[str]](), list[int]()
    rollout = prompts | generate(folder, Layout(), prompts)[0]
    learn(folder, rollout)
    with watched(worker, forgets=forgets) as said:
        for call in calls:
            said.clear()
            if call == "generate_sequences":
                runs = worker.generate_sequences(prompts).ragged("weight_version").values
                [version] = set(runs[:, 0].tolist())
                ages.append(worker.version - version)
            elif call == "sync_weights":
                worker.sync_weights()
            elif call == "learn":
                learn(folder, rollout)
            else:
                worker.compute_log_prob(rollout)
            found.append([what for what, before in zip(said, [None, *said], strict=False) if what != before])
    return found, ages


@contextmanager
def conversing(
    folder: Path, layout: Layout, environment: dict[str, Any], tokenizer: Path | None = None
) -> Iterator[ActorWorker]:
    """The worker, whose rows are conversations in the block.

    `tokenizer`: the folder of one that environments are spoken with by, if it is not the model's.
    """
    worker = actor(folder, layout)
    config = worker.context.config
    config.environment = EnvironmentConfig(**environment)
    config.rollout.max_response_tokens = 40
    config.actor.model.path = str(tokenizer or folder)
    worker.loop = make_loop(worker.context)
    config.actor.model.path = str(folder)
    try:
        yield worker
    finally:
        assert worker.loop is not None
        worker.loop.close()
        worker.loop = None
        config.environment = EnvironmentConfig()
        config.rollout.max_response_tokens = 12


def converse(
    folder: Path,
    layout: Layout,
    prompts: Batch,
    environment: dict[str, Any],
    tokenizer: Path | None = None,
    **sampling: Any,
) -> tuple[list[np.ndarray], Batch, dict[str, float]]:
    """Numbers of rows as their conversations end, all rows in order, and what was measured."""
    with conversing(folder, layout, environment, tokenizer) as worker:
        pieces = list(worker.stream_sequences(prompts, **sampling))
    order = [rows for rows, _ in pieces]
    whole = concat([part for _, part in pieces]).select(np.argsort(np.concatenate(order)))
    return order, whole, dict(worker.context.metrics)


def converse_over_calls(
    folder: Path,
    layout: Layout,
    parts: list[Batch],
    environment: dict[str, Any],
    *,
    renews: bool = False,
    **sampling: Any,
) -> tuple[Batch, int]:
    """All rows in order, of which each part begins some calls after the one before; and how many calls found none.

    `renews`: between any two calls the engine is given the same weights, as those of another version.
    """
    calls = []
    with conversing(folder, layout, environment) as worker:
        worker.sync_weights()
        rollouts = RolloutLoop(worker.generator, worker.context, worker.loop)
        for number, part in enumerate(parts):
            first = sum(map(len, parts[:number]))
            rollouts.take_up(part | Batch(rollout_id=first + np.arange(len(part))), 0, sampling)
            calls += [rollouts.go_on(3) for _ in range(2)]
        while sum(map(len, calls)) < sum(map(len, parts)):
            if renews:
                worker.version += 1
                with rollouts.renewing(worker.version):
                    worker.refit(worker.generator, worker.version)
            calls.append(rollouts.go_on(8))
        worker.generator.sleep()
    whole = concat([call for call in calls if len(call)])
    return whole.select(np.argsort(whole.dense("rollout_id"))), sum(not len(call) for call in calls[-10:])
