"""What ranks run: one pair of engines a model, kept, because vLLM takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from hybridflow.batch import Batch, Ragged, concat
from hybridflow.config.schema import Config, OptimizerConfig, RolloutConfig
from hybridflow.engines.megatron.engine import MegatronEngine
from hybridflow.engines.outputs import MicroBatch, TokenOutputs
from hybridflow.engines.sampling import Generated, Sampling
from hybridflow.engines.vllm import small_products
from hybridflow.engines.vllm.engine import VllmEngine
from hybridflow.parallel.layout import Layout
from hybridflow.resharding.refit import Refit
from hybridflow.workers.rollout_loop import RolloutLoop
from hybridflow.workers.worker import Context
from tests.engines.rank_functions import trainer
from tests.engines.vllm import corruptions
from tests.resharding.plan.simulate import shardings

LAYOUT = Layout(2, generation=(1, 1))
LEARN = OptimizerConfig(lr=3e-4)


@dataclass
class Pair:
    """The engines of one model in this process."""

    megatron: MegatronEngine
    vllm: VllmEngine
    refit: Refit


_pairs: dict[Path, Pair] = {}


def pair(folder: Path) -> Pair:
    """The pair of a model: TP 2 in training, and two replicas that generate."""
    if folder not in _pairs:
        megatron = trainer(folder, LAYOUT, LEARN, budget=2000)
        rollout = RolloutConfig(
            max_sequence_tokens=64, max_concurrent_rows=96, kv_cache_gib=0.1, gpu_memory_fraction=0.1
        )
        vllm = VllmEngine(folder, LAYOUT, rollout, dtype="float32", seed=0, stop_ids=[0])
        refit = Refit(shardings(megatron.shape, LAYOUT), megatron.groups, megatron, torch.float32, verify=True)
        _pairs[folder] = Pair(megatron, vllm, refit)
    return _pairs[folder]


def refusal(folder: Path, prompts: Ragged) -> str:
    """What an engine that has no weights says when it is asked for tokens."""
    try:
        pair(folder).vllm.generate(prompts, Sampling(max_tokens=2), list(range(len(prompts))))
    except RuntimeError as error:
        return str(error)
    return "it generated"


def with_a_block_in_use(folder: Path, prompts: Ragged) -> tuple[str, int]:
    """What an engine says whose cache cannot be emptied, and how many rows it gives once that is over."""
    vllm = pair(folder).vllm
    pool = vllm._llm.llm_engine.engine_core.engine_core.scheduler.kv_cache_manager.block_pool
    blocks = pool.get_new_blocks(1)
    said = refusal(folder, prompts)
    pool.free_blocks(blocks)
    return said, len(vllm.generate(prompts, Sampling(max_tokens=2), list(range(len(prompts)))).tokens)


def refused(engine: str, folder: Path, layout: Layout) -> str:
    """What an engine says of a model that it cannot cut, or run, so."""
    try:
        if engine == "megatron":
            trainer(folder, layout, LEARN)
        else:
            VllmEngine(folder, layout, RolloutConfig(), dtype="float32", seed=0, stop_ids=[0])
    except ValueError as error:
        return str(error)
    return "it was made"


def version(folder: Path) -> int | None:
    """Of the weights that generate."""
    return pair(folder).vllm.version


def refit(folder: Path, version: int) -> bool:
    """Give generation the newest weights."""
    made = pair(folder)
    return made.refit(made.vllm, version)


def broken_refit(folder: Path, version: int, number: int, how: str) -> str:
    """A stream that breaks at a shard, lacks it or has it too small: what comes out, at once on all ranks."""
    made = pair(folder)

    class Breaks:
        def __init__(self) -> None:
            self.version = made.vllm.version

        def update_weights(self, shards: Iterator[tuple[str, Tensor]], version: int, **options: Any) -> None:
            made.vllm.update_weights(broken(shards), version, **options)

    def broken(shards: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        for place, (name, shard) in enumerate(shards):
            if place == number and how == "breaks":
                raise OSError("the stream broke")
            if place != number:
                yield name, shard
            elif how == "is small":
                yield name, shard[:-1]

    try:
        made.refit(Breaks(), version)
    except (OSError, RuntimeError, ValueError) as error:
        return str(error)
    return "it went through"


def generate(folder: Path, parts: list[Ragged], sampling: Sampling, seeds: list[list[int]]) -> Generated:
    """Each replica's responses to its own prompts."""
    rank = dist.get_rank()
    return pair(folder).vllm.generate(parts[rank], sampling, seeds[rank])


def score(folder: Path, batch: Batch) -> np.ndarray:
    """Megatron's log-probs of the response tokens, end to end."""
    scores = pair(folder).megatron.score(batch)
    assert scores is not None
    return scores["log_probs"].values


def learn(folder: Path, batch: Batch) -> None:
    """One step: even tokens become likelier, odd ones less so. The model stays far from saying one thing only."""

    def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
        return (outputs.log_probs * (2 * (micro.targets % 2) - 1)).sum()

    assert pair(folder).megatron.train(batch, loss).applied


def renewed(
    folder: Path, parts: list[Ragged], before: int, version: int, learned: Batch | None, keeps_cache: bool = False
) -> Batch:
    """Rows of this rank's replica that are given weights of a version after so many steps of the engine.

    Args:
        learned: rows that training takes a step on meanwhile.
    """
    made = pair(folder)
    config = Config(rollout=RolloutConfig(keep_kv_cache=keeps_cache))
    loop = RolloutLoop(made.vllm, Context(config, LAYOUT, dist.get_rank(), "rollout"))
    prompts = parts[dist.get_rank()]
    numbers = np.arange(len(prompts))
    rows = Batch(prompt_ids=prompts, stream_id=numbers, rollout_id=numbers)
    loop.take_up(rows, 0, {"max_response_tokens": 12})
    found = [loop.go_on(before)]
    if learned is not None:
        if not keeps_cache:
            with loop.resting():  # as on a lent slot
                made.vllm.sleep()
                made.vllm.version = None  # as on a GPU, whose engine has lost its weights then
        learn(folder, learned)
    with loop.renewing(version):
        made.refit(made.vllm, version)
    if keeps_cache:
        loop.take_up(
            Batch(prompt_ids=prompts, stream_id=numbers + 100, rollout_id=numbers + 100), 0, {"max_response_tokens": 12}
        )
        requests = made.vllm._llm.llm_engine.engine_core.engine_core.scheduler.requests.values()
        later = [request for request in requests if int(request.request_id.split("-")[0]) >= 100]
        assert {request.cache_salt for request in later} == {"1"}, "they find nothing that older weights computed"
        loop.stop([*range(100, 100 + len(prompts))])
    found.append(loop.go_on(100))
    loop.close()
    finished = concat(found)
    return rows | finished.select(np.argsort(finished.dense("rollout_id"))).select_columns(
        ["response_ids", "rollout_log_probs", "weight_version"]
    )


def export(folder: Path, out: Path) -> None:
    """Write the weights."""
    pair(folder).megatron.export(out)


@dataclass
class Corrupted:
    """A refit that was corrupted on one rank: what is said, the version then, how often it was made, and afterwards."""

    said: str
    version: int | None
    repeated: int
    afterwards: bool


def corrupted_refit(folder: Path, rows: Batch, version: int, rank: int, how: str, times: int) -> Corrupted:
    """After a step, on that rank `times` updates are corrupted; then all is right again.

    Layers that are as small as these are packed too meanwhile, as larger ones are: a packed copy can be corrupted.
    """
    made = pair(folder)
    with patch.object(small_products, "SMALL", 0):
        old = corruptions.noted(made.vllm, made.refit, version)
        learn(folder, rows)
        said = ""
        with ExitStack() as stack:
            if dist.get_rank() == rank:
                stack.enter_context(corruptions.corrupted(made.vllm, how, old, times))
            try:
                made.refit(made.vllm, version + 1)
            except RuntimeError as error:
                said = str(error)
        found = Corrupted(said, made.vllm.version, made.refit.repeated, False)
        found.afterwards = made.refit(made.vllm, version + 2) and not made.refit.repeated
    return found
