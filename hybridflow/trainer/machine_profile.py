"""Measures the machine that it runs on, by the calls that a step makes: roles on a pool, engines behind their names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.config.schema import (
    ActorConfig,
    Config,
    Device,
    DType,
    ModelConfig,
    ReferenceConfig,
    RewardConfig,
    RolloutConfig,
)
from hybridflow.controller import ResourcePool, Supervisor, cluster, cluster_gpus, put
from hybridflow.models import ModelShape, read_shape
from hybridflow.observe.host_memory import host_memory
from hybridflow.parallel.layout import Layout
from hybridflow.planning.machine_measurements import CallTime, Measurements
from hybridflow.roles.profiler import ProfilerRole
from hybridflow.runtime.rank import Rank

Say = Callable[[str], None]

MICRO_TOKENS = 512  # of the actor, for many micro-batches; the reference has large ones
LARGE_MICRO_TOKENS = 8192
LONGEST = 256
MOST_ROWS = 128
KV_GIB = 0.5
SLOTS_PER_CORE = 4  # that a node of CPUs is taken to have: more of them only take turns
TRIES = 3  # of which the fastest counts: what else runs on a machine only takes time
GROUP_RANKS = 4
PRODUCTS = [(size, size, size) for size in (16, 32, 64, 128, 256, 512, 1024)] + [(2048, 128, 384)]
ATTENTION = [(rows, 4, tokens, 64) for rows, tokens in ((32, 32), (8, 128), (2, 512))]
COPIES = [2**exponent for exponent in (16, 20, 22, 24, 27)]
MESSAGES = [2**exponent for exponent in (8, 14, 18, 22, 24)]
FLOW_ROWS = (16, 128)
FLOW_TOKENS = 16
SCORED, LEARNED = 5, 4  # calls of a step of PPO with two mini-batches
STORED = [2**exponent for exponent in (10, 16, 20, 24)]
GENERATIONS = ((2, 8, 16), (32, 8, 16), (96, 8, 16), (64, 8, 64), (16, 160, 8), (8, 96, 8), (96, 64, 8))
"""Rows, prompt tokens and at most as many response tokens; what is generated is then scored and learned from."""


@dataclass(frozen=True)
class Bench:
    """Pool with its supervisor, and the means to time calls on it."""

    pool: ResourcePool
    supervisor: Supervisor

    def timed(self, call: Callable[[], object], step: int = 0) -> tuple[dict[str, float], float]:
        """Return what a call measured, and its seconds until it was done."""
        self.supervisor.wait_all()
        self.supervisor.begin_step(step)
        began = perf_counter()
        call()
        metrics = self.supervisor.finish_step()
        return metrics, perf_counter() - began


def measure(models: Sequence[Path], dtype: DType, say: Say) -> Measurements:
    """Measure this machine with these models, whose calls are of that number format.

    Raises as `controller.cluster`, and RoleError with a rank's traceback.
    """
    with cluster(slots=GROUP_RANKS):
        gpus = cluster_gpus()
        device = Device.gpu if gpus else Device.cpu
        found = _empty(device, gpus, dtype)
        for number, folder in enumerate(models):
            say(f"model {number + 1} of {len(models)}: {_described(read_shape(folder))}: generate, score, learn, sync")
            with _pool("single", 1, device) as bench:
                if not number:
                    _alone(bench, found, say)
                _calls(bench, folder, found)
        ranks = min(GROUP_RANKS, gpus) if gpus else GROUP_RANKS
        if ranks > 1:
            say(f"{ranks} ranks: collectives, work at the same time, calls")
            with _pool("group", ranks, device) as bench:
                _among_ranks(bench, ranks, found)
    return found


def _empty(device: Device, gpus: int, dtype: DType) -> Measurements:
    cores = 0 if gpus else len(os.sched_getaffinity(0))
    slots = gpus or SLOTS_PER_CORE * cores
    if gpus:
        import torch

        memory = float(torch.cuda.get_device_properties(0).total_memory)
    else:
        known = host_memory()
        memory = known.total / slots if known else 0.0
    cache = 0.0 if gpus else KV_GIB * 2.0**30
    return Measurements(device, slots, memory, cores, MOST_ROWS, cache, dtype)


@contextmanager
def _pool(name: str, slots: int, device: Device) -> Iterator[Bench]:
    supervisor = Supervisor()
    pool = ResourcePool(name, slots, supervisor, light=False, device=device, rank_class=Rank)
    try:
        yield Bench(pool, supervisor)
    finally:
        pool.close()


def _alone(bench: Bench, found: Measurements, say: Say) -> None:
    """Measure what one rank does by itself."""
    profiler: Any = bench.pool.start_role("profiler", Layout(), interface=ProfilerRole)
    for dtype in DType:
        say(f"products in {dtype.value}")
        found.products[dtype] = profiler.products(dtype.value, PRODUCTS).get()[0]
    found.attention = profiler.attention(ATTENTION).get()[0]
    found.copies = profiler.copies(COPIES).get()[0]
    found.nothing[1] = _median(lambda: bench.timed(profiler.nothing)[1])
    found.flows[1] = [_flow(bench, profiler, rows) for rows in FLOW_ROWS]
    found.store = [_stored(size) for size in STORED]


def _flow(bench: Bench, profiler: Any, rows: int) -> list[float]:
    """Return how often rows are scored and learned from in a flow that computes nothing, and its seconds.

    It has what a step of PPO has beside its calls: prompts are put into the store, calls wait for one another's rows
    and lengths, and what they measured is joined.
    """

    def step() -> None:
        prompts = put(_prompts(rows, FLOW_TOKENS))
        rollout = prompts | profiler.sample(prompts)
        scored = [profiler.score(rollout) for _ in range(SCORED)]
        for _ in range(LEARNED):
            profiler.learn(rollout | scored[-1])

    return [SCORED, LEARNED, _median(lambda: bench.timed(step)[1])]


def _stored(size: int) -> list[float]:
    """Return bytes, and the seconds of putting them into the store and of getting them from it."""
    rows = Batch(values=Ragged.of([np.zeros(size // 4, dtype=np.float32)]))
    ref = put(rows)
    return [size, _median(lambda: _seconds(lambda: put(rows))), _median(lambda: _seconds(ref.get))]


def _calls(bench: Bench, folder: Path, found: Measurements) -> None:
    """Time the calls of an actor with a model."""
    config = _config(folder, found.dtype)
    actor: Any = bench.pool.start_role("actor", Layout(), config=config)
    reference: Any = bench.pool.start_role("reference", Layout(), config=config)
    reward: Any = bench.pool.start_role("reward", Layout(), config=config)
    shape = read_shape(folder)
    prompts = [put(_prompts(rows, tokens)) for rows, tokens, _ in GENERATIONS]
    # In rounds, so that a machine that is slower for a while is so for one try of each and not for all of some.
    rounds = [
        [
            [*_step(bench, (actor, reference, reward), shape, own, tokens, most, number)]
            for own, (_, tokens, most) in zip(prompts, GENERATIONS, strict=True)
        ]
        for number in range(1 + TRIES)
    ]
    for steps in zip(*rounds[1:], strict=True):  # of the same rows
        for tries in zip(*steps, strict=True):  # by method
            found.calls.append(min(tries, key=lambda call: call.wall_s / (1 + call.tokens)))


def _step(
    bench: Bench,
    roles: tuple[Any, Any, Any],
    shape: ModelShape,
    prompts: BatchRef,
    prompt_tokens: int,
    most: int,
    number: int,
) -> Iterator[CallTime]:
    """Make the calls of a small step of GRPO."""

    def timed(method: str, call: Callable[[], Any], rows: BatchRef | None) -> CallTime:
        metrics, wall_s = bench.timed(call, number)
        lengths = tuple(rows.lengths("response_ids").tolist()) if rows is not None else ()
        seconds = metrics[f"timing_s/{method}"]
        micro = LARGE_MICRO_TOKENS if method == "compute_ref_log_prob" else MICRO_TOKENS
        return CallTime(method, shape, len(prompts), prompt_tokens, lengths, seconds, wall_s, micro)

    actor, reference, reward = roles
    yield timed("sync_weights", actor.sync_weights, None)
    made: list[BatchRef] = []
    generated = timed(
        "generate_sequences", lambda: made.append(actor.generate_sequences(prompts, max_response_tokens=most)), None
    )
    rows = prompts | made[0]
    lengths = tuple(rows.lengths("response_ids").tolist())
    yield replace(generated, response_tokens=lengths)
    yield timed("compute_reward", lambda: reward.compute_reward(rows), rows)
    yield timed("compute_ref_log_prob", lambda: reference.compute_ref_log_prob(rows), rows)
    yield timed("compute_log_prob", lambda: made.append(actor.compute_log_prob(rows)), rows)
    advantages = put(Batch(advantages=Ragged.of([np.ones(length, dtype=np.float32) for length in lengths])))
    learned = rows | made[-1] | advantages
    yield timed("update_actor", lambda: actor.update_actor(learned), rows)


def _among_ranks(bench: Bench, ranks: int, found: Measurements) -> None:
    """Measure what ranks do with one another, and what they take from one another."""
    profiler: Any = bench.pool.start_role("profiler", Layout(data=ranks), interface=ProfilerRole)
    sizes = [size for size in (2, 4) if size <= ranks]
    for kind in ("all_reduce", "all_gather", "send"):
        for size in sizes:
            found.collectives[kind, size] = profiler.collectives(kind, size, MESSAGES).get()[0]
    for size in range(1, ranks + 1):
        found.together[size] = max(profiler.together(size).get())
    found.nothing[ranks] = _median(lambda: bench.timed(profiler.nothing)[1])
    found.flows[ranks] = [_flow(bench, profiler, rows) for rows in FLOW_ROWS]


def _config(folder: Path, dtype: DType) -> Config:
    actor = ActorConfig(model=ModelConfig(path=str(folder), dtype=dtype), max_tokens_per_rank=MICRO_TOKENS)
    reference = ReferenceConfig(model=actor.model, max_tokens_per_rank=LARGE_MICRO_TOKENS)
    rollout = RolloutConfig(
        max_response_tokens=LONGEST // 2,
        max_sequence_tokens=LONGEST,
        max_concurrent_rows=MOST_ROWS,
        kv_cache_gib=KV_GIB,
    )
    return Config(actor=actor, rollout=rollout, reward=RewardConfig(grader="exact"), reference=reference)


def _prompts(rows: int, tokens: int) -> Batch:
    chance = np.random.default_rng((rows, tokens))
    answers = np.array(["0"] * rows, dtype=object)
    return Batch(prompt_ids=Ragged.of([chance.integers(2, 12, tokens) for _ in range(rows)]), answer=answers)


def _described(shape: ModelShape) -> str:
    return f"{shape.layers} layers of {shape.hidden}"


def _seconds(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def _median(measure: Callable[[], float]) -> float:
    measure()
    return median(measure() for _ in range(5))
