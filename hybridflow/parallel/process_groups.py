"""Process groups of one role: its own, made from its layout, so that colocated roles never share or clash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist

from hybridflow.parallel.layout import Coordinate, Layout
from hybridflow.parallel.platform import platform
from hybridflow.parallel.waiting import waiting


@dataclass(frozen=True)
class Groups:
    """Position of this rank in a role's layout, and its process groups there.

    Attributes:
        tp, pp, dp: ranks that differ along that axis only.
        replica: ranks of one data parallel number, which together hold the model once.
        everyone: all ranks of the role.
        micro_dp: ranks that share a generation shard; None where the group is this rank alone.
        make: makes more groups of the same ranks, for an engine that needs them.
    """

    layout: Layout
    rank: int
    at: Coordinate
    tp: dist.ProcessGroup
    pp: dist.ProcessGroup
    dp: dist.ProcessGroup
    replica: dist.ProcessGroup
    everyone: dist.ProcessGroup
    micro_dp: dist.ProcessGroup | None
    make: GroupMaker

    @property
    def first_stage(self) -> bool:
        """True on ranks that have the embedding."""
        return self.at.pp == 0

    @property
    def last_stage(self) -> bool:
        """True on ranks that have the output layer."""
        return self.at.pp == self.layout.pipeline - 1

    def global_sums(self, *values: float) -> list[float]:
        """Return sums over the data parallel ranks."""
        return _sums(values, self.dp)

    def sums_of_outputs(self, *values: float) -> list[float]:
        """Return, on all ranks of the role, sums over those with outputs: one of each tensor group, the last stage."""
        counts = self.last_stage and self.at.tp == 0
        return _sums(values if counts else (0.0,) * len(values), self.everyone)


def _sums(values: Sequence[float], group: dist.ProcessGroup) -> list[float]:
    total = torch.tensor(values, dtype=torch.float64, device=platform().device)
    if group.size() > 1:  # alone, a collective would wake its thread for nothing
        platform().synchronize()  # what the device has yet to do is this rank's own time
        with waiting.meeting():
            dist.all_reduce(total, group=group)
            return total.tolist()
    return total.tolist()


@dataclass(frozen=True)
class GroupMaker:
    """Makes process groups of a role's ranks, each once. All ranks make the same ones, in the same order."""

    timeout: timedelta
    _made: dict[tuple[tuple[int, ...], ...], dist.ProcessGroup | None] = field(default_factory=dict)

    def maybe(self, groups: Sequence[Sequence[int]]) -> dist.ProcessGroup | None:
        """Return the one of these groups that this rank is in; None if it is in none."""
        key = tuple(map(tuple, groups))
        if key not in self._made:
            rank = dist.get_rank()
            made = [dist.new_group(list(ranks), timeout=self.timeout) for ranks in key]
            self._made[key] = next((group for ranks, group in zip(key, made, strict=True) if rank in ranks), None)
        return self._made[key]

    def __call__(self, groups: Sequence[Sequence[int]]) -> dist.ProcessGroup:
        """Return the one of these groups that this rank is in."""
        group = self.maybe(groups)
        assert group is not None, f"rank {dist.get_rank()} is in none of {groups}"
        return group


def make_groups(layout: Layout, timeout_s: float) -> Groups:
    """Make the process groups of a layout. All ranks call it, in the same order.

    Raises ValueError if torch.distributed has another number of ranks than the layout.
    """
    rank = dist.get_rank()
    world = dist.get_world_size()
    if world != layout.size:
        raise ValueError(f"the layout has {layout.size} ranks, torch.distributed has {world}")
    make = GroupMaker(timedelta(seconds=timeout_s))
    tp, pp, dp = (make(layout.groups(axis)) for axis in ("tp", "pp", "dp"))
    everyone = make([range(world)])
    replica = make(layout.groups("tp", "pp"))
    micro = layout.micro_dp_groups()
    micro_dp = make(micro) if len(micro[0]) > 1 else None
    return Groups(layout, rank, layout.coordinates[rank], tp, pp, dp, replica, everyone, micro_dp, make)
