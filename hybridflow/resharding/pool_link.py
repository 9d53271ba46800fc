"""Process group over two pools, beside each pool's own: for messages from one rank to another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist
from torch import Tensor

from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform
from hybridflow.parallel.rendezvous import meet


@dataclass(frozen=True)
class Link:
    """Position of this rank among the training ranks and, numbered after them, the rollout ranks.

    Attributes:
        rank: the number among them all.
        group: of all; nobody else sends on it.
        store: of them all.
    """

    training: Layout
    generation: Layout
    rank: int
    group: dist.ProcessGroup
    store: dist.Store

    def send(self, tensor: Tensor, taker: int) -> dist.Work:
        """Send to a rank; messages between two ranks arrive in order."""
        return self.group.send([tensor], taker, 0)

    def receive(self, room: Tensor, giver: int) -> dist.Work:
        """Receive what a rank sends next."""
        return self.group.recv([room], giver, 0)

    def refuse_another_plan(self, digest: str) -> None:
        """Raise RuntimeError if the first training rank has another plan. All ranks call it."""
        if self.rank == 0:
            self.store.set("plan", digest)
        if (first := self.store.get("plan").decode()) != digest:
            raise RuntimeError(
                f"the plan of a refit has sha256 {digest[:12]} on rank {self.rank} and {first[:12]} on rank 0 (rollout "
                f"ranks are numbered from {self.training.size}): model, layouts, number format and bucket size must be "
                "the same on all"
            )


def connect(meeting: str, training: Layout, generation: Layout, rank: int, timeout_s: float) -> Link:
    """Meet the other ranks; all of both pools call it.

    Args:
        meeting: `file://path` or `tcp://host:port`, as `hybridflow.parallel.rendezvous.meet` takes it.
        rank: among the training ranks and, after them, the rollout ranks.
        timeout_s: of each message, and of meeting.
    """
    size = training.size + generation.size
    timeout = timedelta(seconds=timeout_s)
    store = meet(meeting, rank, size, timeout)
    group = platform().process_group(dist.PrefixStore("refit", store), rank, size, timeout)
    return Link(training, generation, rank, group, store)
