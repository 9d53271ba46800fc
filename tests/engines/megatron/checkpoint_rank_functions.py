"""What ranks run: engines that learn, are saved, are built anew and go on."""

from __future__ import annotations

import dataclasses
import random
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing import ShardedTensor
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker
from torch import Tensor

from hybridflow.batch import Batch
from hybridflow.config.schema import OptimizerConfig
from hybridflow.engines.megatron import engine_checkpoint
from hybridflow.engines.megatron.engine import MegatronEngine
from hybridflow.engines.megatron.optimizer_shards import is_distributed, shard_of
from hybridflow.engines.outputs import MicroBatch, TokenOutputs
from hybridflow.errors import HybridFlowError
from hybridflow.observe.disk_errors import writing
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform
from tests.engines import rank_functions, reference
from tests.small_disk import room_for


def settings(sharded: bool) -> OptimizerConfig:
    """Those of all tests; sharded: with Megatron's distributed optimizer."""
    return dataclasses.replace(reference.SETTINGS, distributed=sharded)


def step(made: MegatronEngine, batch: Batch, parts: list[list[int]] | None = None) -> None:
    """One optimizer step, each data parallel rank on its rows."""
    mine = batch if parts is None else batch.select(parts[made.groups.at.dp])

    def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
        weights = rank_functions.at_tokens(mine.ragged("weights"), micro)
        return reference.loss(outputs.log_probs, outputs.entropy, weights)

    assert made.train(mine, loss).applied


def rows_of(layout: Layout) -> list[list[int]]:
    """The 7 rows, dealt out to the data parallel ranks."""
    return [list(range(dp, 7, layout.data)) for dp in range(layout.data)]


def save_where_there_is_no_room(folder: Path, layout: Layout, out: Path) -> str:
    """What is said where no file may have more than 20,000 bytes."""
    made = rank_functions.trainer(folder, layout, settings(False))
    with room_for(20_000):
        return refused(made, out)


def refused(made: MegatronEngine, out: Path) -> str:
    """What is said of a save that fails."""
    try:
        with writing(out):
            made.save(out, {})
    except HybridFlowError as error:
        return str(error)
    raise AssertionError("it was saved")


def save_without_room_on_one_rank(folder: Path, layout: Layout, out: Path, rank: int, what: str) -> tuple[str, bool]:
    """What is said where one rank has no room for one thing; then whether there is another save, all to its end.

    Args:
        what: all ranks are to do, by its name; or `tensors`.
    """
    made = rank_functions.trainer(folder, layout, settings(False))
    on_all, save = engine_checkpoint._on_all, engine_checkpoint.OneProcess.save

    def with_room(wanted: bool) -> AbstractContextManager[None]:
        return room_for(0) if wanted and made.groups.rank == rank else nullcontext()

    def on_all_without(name: str, *arguments: Any) -> None:
        with with_room(name == what):
            on_all(name, *arguments)

    def save_without(*arguments: Any) -> None:
        with with_room(what == "tensors"):
            save(*arguments)

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(engine_checkpoint, "_on_all", on_all_without)
        patches.setattr(engine_checkpoint.OneProcess, "save", save_without)
        told = refused(made, out / "refused")
    made.save(out / "again", {})
    return told, (out / "again" / engine_checkpoint.STATE).exists()


def learn_and_save(
    folder: Path, layout: Layout, batch: Batch, out: Path, count: int, sharded: bool = False, **options: Any
) -> tuple[rank_functions.Arrays, float]:
    """Save after `count` steps, take one more; the weights then, and the seconds that the save took."""
    made = rank_functions.trainer(folder, layout, settings(sharded), **options)
    assert made.optimizer is not None and is_distributed(made.optimizer.inner) == sharded
    for _ in range(count):
        step(made, batch, rows_of(layout))
    start = perf_counter()
    made.save(out, {"weight_version": count})
    seconds = perf_counter() - start
    step(made, batch, rows_of(layout))
    return rank_functions.weights(made), seconds


def load_and_learn(
    folder: Path, layout: Layout, batch: Batch, source: Path, again: Path, sharded: bool = False, **options: Any
) -> tuple[rank_functions.Arrays, dict[str, Any], float]:
    """Load into a new engine, save it again, take one more step; the weights, what was extra, the learning rate."""
    made = rank_functions.trainer(folder, layout, settings(sharded), **options)
    extra = made.load(source)
    made.save(again, extra)
    assert made.optimizer is not None
    params = [shard_of(made.optimizer.inner, param) for param in made.model.parameters()]
    steps = [part.adam["step"] for part in params if part is not None and part.adam]
    assert len({id(tensor) for tensor in steps}) == len(steps), "parameters share a step tensor"
    before = {int(tensor) for tensor in steps}
    step(made, batch, rows_of(layout))
    after = {int(part.adam["step"]) for part in params if part is not None}
    assert after == {count + 1 for count in before or {0}}, (before, after)
    return rank_functions.weights(made), extra, made.optimizer.inner.param_groups[0]["lr"]


def tensors(folder: Path) -> dict[str, np.ndarray] | None:
    """Every tensor of a saved engine, whole."""
    found = dist_checkpointing.serialization.load_plain_tensors(str(folder / "tensors"))
    return {name: tensor.numpy() for name, tensor in found.items()}


def draws() -> list[Any]:
    """What every random number generator of this process gives next."""
    device = platform().device
    with get_cuda_rng_tracker().fork():
        inside = torch.rand(2, device=device).tolist()
    on_device = torch.rand(2, device=device).tolist()
    return [torch.rand(2).tolist(), on_device, inside, np.random.randn(), random.random(), random.gauss(0, 1)]


def random_states(folder: Path, layout: Layout, out: Path) -> tuple[list[Any], list[Any]]:
    """What is drawn after a save, and after a load of it into an engine that drew something else before."""
    made = rank_functions.trainer(folder, layout, reference.SETTINGS)
    np.random.randn(), random.gauss(0, 1)  # both keep a spare number
    torch.rand(int(torch.randint(1, 9, ())) + made.groups.rank)
    made.save(out, {})
    expected = draws()
    other = rank_functions.trainer(folder, layout, reference.SETTINGS)
    draws()
    other.load(out)
    return expected, draws()


def draws_of_losses(folder: Path, layout: Layout, batch: Batch, out: Path) -> list[list[Any]]:
    """What losses draw: of an engine that is alone, of one beside another in a process that draws too, and of one that
    goes on from a save of the latter.
    """

    def drawn(made: MegatronEngine) -> list[Any]:
        found: list[Any] = []

        def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
            found.append(draws())
            return outputs.log_probs.sum()

        made.train(batch, loss)
        return found

    alone = rank_functions.trainer(folder, layout, reference.SETTINGS)
    expected = [drawn(alone), drawn(alone)]
    made, other = (rank_functions.trainer(folder, layout, reference.SETTINGS) for _ in range(2))
    draws()
    first = drawn(made)
    made.save(out, {})
    drawn(other)
    beside = [first, drawn(made)]
    other.load(out)
    return [expected, beside, [first, drawn(other)]]


def writes_without_a_manager(out: Path) -> tuple[bool, bool]:
    """Whether Megatron's own writer wants its manager process, and whether ours does."""

    def refuse() -> None:
        raise RuntimeError("a manager was asked for")

    def wants(name: str, *strategy: Any) -> bool:
        (out / name).mkdir(parents=True)
        shard = ShardedTensor.from_rank_offsets("w", torch.ones(3))
        try:
            dist_checkpointing.save({"w": shard}, str(out / name), *strategy)
        except RuntimeError as error:
            assert "a manager was asked for" in str(error)
            return True
        return False

    original, filesystem_async._get_write_results_queue = filesystem_async._get_write_results_queue, refuse
    try:
        return wants("theirs"), wants("ours", engine_checkpoint.OneProcess("torch_dist", 1))
    finally:
        filesystem_async._get_write_results_queue = original
