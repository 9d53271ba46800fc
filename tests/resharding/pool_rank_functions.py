"""What the ranks of two pools run: a refit from the one to the other, and what it moved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from hybridflow.models import read_shape
from hybridflow.parallel.layout import Layout
from hybridflow.resharding.plan import Plan
from hybridflow.resharding.pool_link import Link, connect
from hybridflow.resharding.pool_refit import PoolRefit, WeightSender, plan_for
from tests.engines.rank_functions import engine
from tests.resharding.counting import Done
from tests.resharding.plan.simulate import shardings
from tests.resharding.rank_functions import Receiver

TIMEOUT_S = 120.0  # one side's processes may just be starting


@dataclass
class PendingCall:
    """A message that holds its buffer until it is waited for."""

    tensors: list[Tensor]
    work: dist.Work

    def wait(self) -> None:
        self.work.wait()
        self.tensors = []


class Counting:
    """Hands messages on, and counts the bytes of weights by who they come from or go to; sums are no weights.

    The group below works on copies, as in `CountingGroup`: gloo's threads hold what they worked on a moment longer.
    """

    def __init__(self, inner: dist.ProcessGroup) -> None:
        self.inner, self.received, self.sent = inner, dict[int, int](), dict[int, int]()

    def send(self, tensors: list[Tensor], taker: int, tag: int) -> PendingCall:
        self._count(self.sent, tensors, taker)
        return PendingCall(tensors, self.inner.send([tensor.clone() for tensor in tensors], taker, tag))

    def recv(self, tensors: list[Tensor], giver: int, tag: int) -> Done:
        self._count(self.received, tensors, giver)
        copies = [torch.empty_like(tensor) for tensor in tensors]
        self.inner.recv(copies, giver, tag).wait()
        for tensor, copy in zip(tensors, copies, strict=True):
            tensor.copy_(copy)
        return Done()

    def _count(self, counted: dict[int, int], tensors: list[Tensor], other: int) -> None:
        [tensor] = tensors
        if tensor.dtype.is_floating_point:
            counted[other] = counted.get(other, 0) + tensor.nbytes


def linked(meeting: Path, training: Layout, generation: Layout, first: int) -> tuple[Link, Counting]:
    """This rank's place, over an instrumented group; `first`: the number of its pool's first rank."""
    made = connect(f"file://{meeting}", training, generation, first + dist.get_rank(), TIMEOUT_S)
    counting: Any = Counting(made.group)
    return Link(training, generation, made.rank, counting, made.store), counting


def give(
    folder: Path, meeting: Path, training: Layout, generation: Layout, limit: int, held: list[int]
) -> tuple[Plan, dict[int, int], int]:
    """A training rank: the plan, what it sent by taker, and the most that was alive."""
    made = engine(folder, training)
    link, counting = linked(meeting, training, generation, 0)
    giving = WeightSender(
        shardings(made.shape, training, generation), link, made, torch.float32, verify=True, bucket_bytes=limit
    )
    giving({training.size + rank: version for rank, version in enumerate(held)}, 1)
    return giving.plan, counting.sent, giving.peak_bytes


@dataclass
class Took:
    """What a rollout rank has taken in, from whom, and what was alive."""

    plan: Plan
    taken: dict[str, np.ndarray]
    received: dict[int, int]
    peak: int
    said: str
    version: int | None
    identity: str


def take(folder: Path, meeting: Path, training: Layout, generation: Layout, limit: int, spoils: str = "") -> Took:
    """A rollout rank; `spoils`: a weight that rank 0 does not take in as it comes."""
    link, counting = linked(meeting, training, generation, training.size)
    receiver, said = Receiver(), ""
    receiver.spoils = spoils if dist.get_rank() == 0 else ""
    both = shardings(read_shape(folder), training, generation)
    refit = PoolRefit(both, link, torch.float32, verify=True, identify=True, bucket_bytes=limit)
    try:
        assert refit(receiver, 1)
    except RuntimeError as error:
        said = str(error)
    return Took(refit.plan, receiver.taken, counting.received, refit.peak_bytes, said, receiver.version, refit.identity)


def linked_only(folder: Path, meeting: Path, training: Layout, generation: Layout, limit: int) -> None:
    """A rollout rank that has the version already."""
    link, _ = linked(meeting, training, generation, training.size)
    receiver = Receiver()
    receiver.version = 1
    assert not PoolRefit(shardings(read_shape(folder), training, generation), link, torch.float32, bucket_bytes=limit)(
        receiver, 1
    )


def plan_only(folder: Path, meeting: Path, training: Layout, generation: Layout, limit: int) -> str:
    """What a rank is told of its plan: a training rank has the smaller limit."""
    first = 0 if limit == 2**20 else training.size
    link, _ = linked(meeting, training, generation, first)
    try:
        plan_for(shardings(read_shape(folder), training, generation), link, torch.float32, limit)
    except RuntimeError as error:
        return str(error)
    return "they agree"
