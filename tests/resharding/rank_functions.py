"""What ranks run: the transition of a tiny model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hybridflow.engines.weight_readings import WeightReadings
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform
from hybridflow.resharding.live_bytes import Alive
from hybridflow.resharding.plan import Plan, make_plan
from hybridflow.resharding.refit import Refit
from hybridflow.resharding.transport import Transport
from tests.engines.rank_functions import engine
from tests.resharding.counting import CountingGroup
from tests.resharding.plan.simulate import shardings


def shards(folder: Path, layout: Layout, bucket_elements: int, dtype: str = "float32") -> dict[str, np.ndarray]:
    """This rank's generation shards as float32 arrays."""
    made = engine(folder, layout)
    plan = make_plan(shardings(made.shape, layout), layout, itemsize=1, bucket_bytes=bucket_elements)
    found: dict[str, np.ndarray] = {}
    exchange, device = plan.exchange(made.groups.rank), platform().device
    transport = Transport(exchange, made, made.groups.micro_dp, getattr(torch, dtype), device)
    for name, shard in transport.shards(Alive()):
        assert name not in found
        found[name] = shard.float().cpu().numpy().copy()
    return found


class Receiver:
    """Takes in shards one by one, as our vLLM does.

    Attributes:
        breaks: fail at the third shard.
        spoils: change one number of this weight before it is taken in.
        loses: do not take this weight in.
    """

    def __init__(self) -> None:
        self.version: int | None = None
        self.breaks, self.spoils, self.loses = False, "", ""
        self.taken: dict[str, np.ndarray] = {}

    def update_weights(
        self, stream: Iterator[tuple[str, Tensor]], version: int, *, readings: WeightReadings | None = None
    ) -> None:
        self.version, self.taken = None, {}
        for name, shard in stream:
            if self.breaks and len(self.taken) == 2:
                raise OSError("the receiver broke")
            if name == self.spoils:
                shard = shard.clone()
                shard.flatten()[0] += 1
            if readings and name != self.loses:
                readings.read(name, shard)
            self.taken[name] = shard.float().cpu().numpy().copy()
        self.version = version


def refits(folder: Path, layout: Layout) -> list[tuple[str, bool | None, int | None, int]]:
    """A refit to 0, again to 0, to 1, one that breaks and one more: (what, done, version then, shards taken)."""
    made, receiver = engine(folder, layout), Receiver()
    refit = Refit(shardings(made.shape, layout), made.groups, made, torch.float32)
    said: list[tuple[str, bool | None, int | None, int]] = []
    for what, version in (("new", 0), ("same", 0), ("next", 1), ("broken", 2), ("again", 2)):
        receiver.breaks = what == "broken"
        try:
            done: bool | None = refit(receiver, version)
        except OSError:
            done = None
        said.append((what, done, receiver.version, len(receiver.taken)))
    return said


def identities(folder: Path, layout: Layout, spoiled: int) -> list[str]:
    """What weights are called: at first, in another engine, and when a rank (-1: each) has another bit in a shard."""
    called = []
    for changes in (False, False, True):
        made = engine(folder, layout)
        refit = Refit(shardings(made.shape, layout), made.groups, made, torch.float32, verify=True, identify=True)
        if changes and spoiled in (-1, made.groups.rank):
            with torch.no_grad():
                shard = made.shard(next(iter(refit.regions.values())).weight)
                shard.view(-1)[:1].view(torch.int32).bitwise_xor_(1)
        assert refit(Receiver(), 1)
        called.append(refit.identity)
    return called


@dataclass
class Carried:
    """A refit on one rank: what came out, what it moved and what was alive, in bytes."""

    plan: Plan
    taken: dict[str, np.ndarray]
    received: int
    sent: int
    messages: int
    peak: int


def carried_out(folder: Path, layout: Layout, method: str, bucket_bytes: int) -> Carried:
    """A verified refit over an instrumented process group."""
    made = engine(folder, layout)
    refit = Refit(
        shardings(made.shape, layout),
        made.groups,
        made,
        torch.float32,
        method=method,
        verify=True,
        bucket_bytes=bucket_bytes,
    )
    counting = CountingGroup(refit.transport.group) if refit.transport.group is not None else None
    refit.transport = replace(refit.transport, group=counting)
    receiver = Receiver()
    assert refit(receiver, 1) and receiver.version == 1
    count = (counting.received, counting.sent, counting.messages) if counting else (0, 0, 0)
    return Carried(refit.plan, receiver.taken, *count, refit.peak_bytes)


def under_way(folder: Path, layout: Layout, bucket_bytes: int) -> tuple[int, int]:
    """The collectives that a rank has begun when it is given its first shard, and those of the whole refit."""
    made = engine(folder, layout)
    refit = Refit(shardings(made.shape, layout), made.groups, made, torch.float32, bucket_bytes=bucket_bytes)
    counting = CountingGroup(refit.transport.group)
    shards = replace(refit.transport, group=counting).shards(Alive())
    next(shards)
    begun = counting.messages
    for _ in shards:
        pass
    return begun, counting.messages


def unlike(folder: Path, layout: Layout, odd: int) -> str:
    """What ranks are told when one of them has buckets of another size."""
    made = engine(folder, layout)
    size = 2**20 if made.groups.rank == odd else 2**21
    try:
        Refit(shardings(made.shape, layout), made.groups, made, torch.float32, bucket_bytes=size)
    except RuntimeError as error:
        return str(error)
    return "they agree"


def spoiled(folder: Path, layout: Layout, rank: int, **fault: str) -> tuple[str, int | None]:
    """A verified refit in which one rank's receiver has a fault: what is said, and the version then."""
    made, receiver = engine(folder, layout), Receiver()
    if made.groups.rank == rank:
        for name, value in fault.items():
            setattr(receiver, name, value)
    refit = Refit(shardings(made.shape, layout), made.groups, made, torch.float32, verify=True)
    try:
        refit(receiver, 4)
    except RuntimeError as error:
        return str(error), receiver.version
    return "it went through", receiver.version
