"""Refit: give generation the newest weights, once for each weight version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from hybridflow.models import Shape
from hybridflow.parallel.groups import Groups
from hybridflow.parallel.platform import platform
from hybridflow.resharding.plan import make_plan
from hybridflow.resharding.transport import Shards, generation_shards

BUCKET_BYTES = 64 * 2**20


class Receiver(Protocol):
    """A generation engine that takes its shards."""

    version: int | None

    def receive(self, shards: Iterator[tuple[str, Tensor]], version: int) -> None:
        """Take the weights of that version. Until it returns, the engine has no usable weights."""
        ...


class Refit:
    """The transition from one training engine to the generation engine in the same process."""

    def __init__(self, shape: Shape, groups: Groups, local: Shards, dtype: torch.dtype) -> None:
        self._groups, self._local, self._dtype = groups, local, dtype
        self.plan = make_plan(shape, groups.layout, itemsize=dtype.itemsize, bucket_bytes=BUCKET_BYTES)

    def __call__(self, receiver: Receiver, version: int) -> bool:
        """Bring the receiver to `version`; all ranks call it. Returns whether there was anything to do."""
        if receiver.version == version:
            return False
        exchange = self.plan.exchange(self._groups.rank)
        shards = generation_shards(exchange, self._local, self._groups.micro_dp, self._dtype, platform().device)
        receiver.receive(shards, version)
        return True
