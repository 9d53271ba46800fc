"""What ranks run: the transition of a tiny model's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform
from hybridflow.resharding.alive import Alive
from hybridflow.resharding.plan import make_plan
from hybridflow.resharding.refit import Refit
from hybridflow.resharding.transport import Transport
from tests.engines.play import engine


def shards(folder: Path, layout: Layout, bucket_elements: int, dtype: str = "float32") -> dict[str, np.ndarray]:
    """This rank's generation shards as float32 arrays."""
    made = engine(folder, layout)
    plan = make_plan(made.shape, layout, itemsize=1, bucket_bytes=bucket_elements)
    found: dict[str, np.ndarray] = {}
    exchange, device = plan.exchange(made.groups.rank), platform().device
    transport = Transport(exchange, made.weights, made.groups.micro_dp, getattr(torch, dtype), device)
    for name, shard in transport.shards(Alive()):
        assert name not in found
        found[name] = shard.float().cpu().numpy().copy()
    return found


class Receiver:
    """Takes what it is given, and fails at the third shard while `fails` is set."""

    def __init__(self) -> None:
        self.version: int | None = None
        self.fails = False
        self.taken: list[str] = []

    def receive(
        self,
        stream: Iterator[tuple[str, Tensor]],
        version: int,
        *,
        checksum: Callable[[Tensor], int] | None = None,
    ) -> dict[tuple[str, ...], int]:
        self.version, self.taken = None, []
        for name, _ in stream:
            if self.fails and len(self.taken) == 2:
                raise OSError("the receiver broke")
            self.taken.append(name)
        self.version = version
        return {}


def refits(folder: Path, layout: Layout) -> list[tuple[str, bool | None, int | None, int]]:
    """A refit to 0, again to 0, to 1, one that breaks and one more: (what, done, version then, shards taken)."""
    made, receiver = engine(folder, layout), Receiver()
    refit = Refit(made.shape, made.groups, made.weights, torch.float32)
    said: list[tuple[str, bool | None, int | None, int]] = []
    for what, version in (("new", 0), ("same", 0), ("next", 1), ("broken", 2), ("again", 2)):
        receiver.fails = what == "broken"
        try:
            done: bool | None = refit(receiver, version)
        except OSError:
            done = None
        said.append((what, done, receiver.version, len(receiver.taken)))
    return said
