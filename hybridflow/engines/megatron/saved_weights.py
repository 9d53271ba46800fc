"""Weights of a checkpoint, read by one process without an engine, whatever the layout that saved them.

The tensors are there whole under their Hugging Face names (`engine_checkpoint`), so no model is built.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, load

from hybridflow.engines.megatron import saved_index
from hybridflow.engines.megatron.saved_index import TENSORS
from hybridflow.models import Weight

READ_TOGETHER = 2**30  # bytes: a read has a cost of its own, and what was read waits in memory


def read(folder: Path, weights: Sequence[Weight]) -> Iterator[tuple[str, Tensor]]:
    """Yield name and whole float32 tensor of each weight.

    Raises KeyError naming one that the checkpoint lacks, HybridFlowError if its index is not one of tensors alone.
    """
    saved_index.check(folder)
    reader = FileSystemReader(folder / TENSORS)
    known = reader.read_metadata().state_dict_metadata
    for weight in weights:
        if f"weights/{weight.name}" not in known:
            raise KeyError(f"{folder} has no tensor {weight.name!r}")
    for part in _parts(weights):
        tensors = {f"weights/{weight.name}": torch.empty(weight.shape) for weight in part}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as it is meant to be
            load(tensors, storage_reader=reader, no_dist=True)
        yield from ((key.removeprefix("weights/"), tensor) for key, tensor in tensors.items())


def _parts(weights: Sequence[Weight]) -> Iterator[list[Weight]]:
    """Cut the weights into parts that are read together."""
    part: list[Weight] = []
    size = 0
    for weight in weights:
        part.append(weight)
        size += 4 * prod(weight.shape)
        if size >= READ_TOGETHER:
            yield part
            part = []
            size = 0
    if part:
        yield part
