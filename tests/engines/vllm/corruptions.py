"""Seeded corruptions of what vLLM computes with after an update: each as one fault of the way would leave it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from hybridflow.engines.vllm.engine import VllmEngine

Shards = Iterator[tuple[str, Tensor]]
PROJECTION = "self_attn.o_proj.weight"  # of it vLLM keeps a packed copy only, on a CPU
EMBEDDING = "model.embed_tokens.weight"  # and of it both


def flipped(tensor: Tensor, place: int, bit: int) -> Tensor:
    """A copy with one bit changed."""
    copy = tensor.detach().clone()
    bits = copy.view({2: torch.int16, 4: torch.int32}[copy.itemsize]).view(-1)
    bits[place] ^= 1 << bit
    return copy


def stale(shards: Shards, old: dict[str, Tensor]) -> Shards:
    """One projection comes as it was."""
    for name, shard in shards:
        yield name, old.get(name, shard) if name == f"model.layers.1.{PROJECTION}" else shard


def swapped(shards: Shards, old: dict[str, Tensor]) -> Shards:
    """Two layers' projections change places."""
    first = None
    for name, shard in shards:
        if name == f"model.layers.0.{PROJECTION}":
            first = shard.clone()
        elif name == f"model.layers.1.{PROJECTION}":
            assert first is not None
            yield name.replace(".1.", ".0."), shard.clone()
            yield name, first
        else:
            yield name, shard


def truncated(shards: Shards, old: dict[str, Tensor]) -> Shards:
    """The last rows of the embedding do not come."""
    for name, shard in shards:
        yield name, torch.cat([shard[:-2], torch.zeros_like(shard[-2:])]) if name == EMBEDDING else shard


def one_bit(shards: Shards, old: dict[str, Tensor]) -> Shards:
    """The lowest bit of one number of a fused layer changes on its way."""
    for name, shard in shards:
        yield name, flipped(shard, 7, 0) if name.endswith("layers.1.mlp.up_proj.weight") else shard


def one_norm_bit(shards: Shards, old: dict[str, Tensor]) -> Shards:
    """The sign of one number of a norm changes on its way."""
    for name, shard in shards:
        yield name, flipped(shard, 3, 8 * shard.itemsize - 1) if name == "model.norm.weight" else shard


def skipped(shards: Shards, old: dict[str, Tensor]) -> Shards:
    """All weights are those of the version before."""
    for name, shard in shards:
        yield name, old.get(name, shard)


@contextmanager
def packed_bit(model: Any) -> Iterator[None]:
    """One bit changes in packing a projection: what was written is right."""
    layer = model.model.layers[1].self_attn.o_proj
    pack = type(layer.quant_method).process_weights_after_loading

    def spoiled(method: Any, given: Any) -> None:
        written = given.weight
        if given is layer:
            given.weight = torch.nn.Parameter(flipped(written, 5, 1), requires_grad=False)
        pack(method, given)

    with patch.object(type(layer.quant_method), "process_weights_after_loading", spoiled):
        yield


@contextmanager
def tied_head_left_behind(model: Any) -> Iterator[None]:
    """The output layer's packed copy of the embedding stays as it was."""
    pack = type(model.lm_head.quant_method).process_weights_after_loading

    def lazy(method: Any, given: Any) -> None:
        if given is not model.lm_head:
            pack(method, given)

    with patch.object(type(model.lm_head.quant_method), "process_weights_after_loading", lazy):
        yield


@contextmanager
def unwritten(model: Any) -> Iterator[None]:
    """One layer's weights come and are not written."""
    from hybridflow.engines.vllm import shard_receiver

    write = shard_receiver._write

    def lazy(place: Any, name: str, shard: Tensor) -> None:
        if name != EMBEDDING:
            write(place, name, shard)

    with patch.object(shard_receiver, "_write", lazy):
        yield


ON_THE_WAY: dict[str, Callable[[Shards, dict[str, Tensor]], Shards]] = {
    "stale": stale,
    "swapped": swapped,
    "truncated": truncated,
    "one flipped bit": one_bit,
    "one flipped sign of a norm": one_norm_bit,
    "one engine skipped": skipped,
}
IN_THE_ENGINE: dict[str, Callable[[Any], Any]] = {
    "one flipped bit of a packed copy": packed_bit,
    "tied head left behind": tied_head_left_behind,
    "embedding not written": unwritten,
}
SAYS = {  # the weight that is named
    "stale": f"model.layers.1.{PROJECTION} [0, ",
    "swapped": f"model.layers.0.{PROJECTION} [0, ",
    "truncated": f"{EMBEDDING} [0, ",
    "one flipped bit": "model.layers.1.mlp.up_proj.weight [0, ",
    "one flipped sign of a norm": "model.norm.weight [0, ",
    "one engine skipped": f"{EMBEDDING} [0, ",
    "one flipped bit of a packed copy": f"model.layers.1.{PROJECTION} [0, ",
    "tied head left behind": f"{EMBEDDING} [0, ",
    "embedding not written": f"{EMBEDDING} [0, ",
}
CORRUPTIONS = [*ON_THE_WAY, *IN_THE_ENGINE]


@contextmanager
def corrupted(vllm: VllmEngine, how: str, old: dict[str, Tensor], times: int = 2) -> Iterator[None]:
    """Corrupt the next updates.

    Args:
        old: the shards of the version before.
        times: updates that are corrupted; those after them are right.
    """
    update, left = vllm.update_weights, [times]
    [model] = vllm._llm.apply_model(lambda model: model)

    def spoiled(shards: Shards, version: int, **options: Any) -> None:
        left[0] -= 1
        with ExitStack() as stack:
            if left[0] >= 0 and how in IN_THE_ENGINE:
                stack.enter_context(IN_THE_ENGINE[how](model))
            if left[0] >= 0 and how in ON_THE_WAY:
                shards = ON_THE_WAY[how](shards, old)
            update(shards, version, **options)

    with patch.object(vllm, "update_weights", spoiled):
        yield


def noted(vllm: VllmEngine, refit: Callable[[Any, int], bool], version: int) -> dict[str, Tensor]:
    """Refit, and return copies of the shards that came."""
    update, old = vllm.update_weights, dict[str, Tensor]()

    def watched(shards: Shards, version: int, **options: Any) -> None:
        def each() -> Shards:
            for name, shard in shards:
                old[name] = shard.detach().clone()
                yield name, shard

        update(each(), version, **options)

    with patch.object(vllm, "update_weights", watched):
        refit(vllm, version)
    return old
