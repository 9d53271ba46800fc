"""Process groups of one role: its own, made from its layout, so that colocated roles never share or clash."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist
from megatron.core.process_groups_config import ProcessGroupCollection

from hybridflow.parallel.layout import Coordinate, Layout


@dataclass(frozen=True)
class Groups:
    """Position of this rank in a role's layout, and its process groups there.

    Attributes:
        megatron: the groups as Megatron-core takes them.
        micro_dp: the ranks that share a generation shard; None where the group is this rank alone.
    """

    layout: Layout
    rank: int
    at: Coordinate
    megatron: ProcessGroupCollection
    micro_dp: dist.ProcessGroup | None

    @property
    def first_stage(self) -> bool:
        """True on ranks that have the embedding."""
        return self.at.pp == 0

    @property
    def last_stage(self) -> bool:
        """True on ranks that have the output layer."""
        return self.at.pp == self.layout.pipeline - 1


def make_groups(layout: Layout, timeout_s: float) -> Groups:
    """Make every process group of a layout. All ranks call it, in the same order.

    Raises ValueError if torch.distributed has another number of ranks than the layout, or for context or expert
    parallelism, which the engine does not support yet.
    """
    for kind, size in (("context", layout.context), ("expert", layout.expert)):
        if size > 1:
            raise ValueError(f"{kind} parallelism is not supported yet: the layout has {size}, 1 is possible")
    rank = dist.get_rank()
    world = dist.get_world_size()
    if world != layout.size:
        raise ValueError(f"the layout has {layout.size} ranks, torch.distributed has {world}")
    timeout = timedelta(seconds=timeout_s)
    made: dict[tuple[tuple[int, ...], ...], dist.ProcessGroup] = {}

    def group(groups: list[list[int]]) -> dist.ProcessGroup:
        key = tuple(map(tuple, groups))
        if key not in made:
            made[key], _ = dist.new_subgroups_by_enumeration(groups, timeout=timeout)
        return made[key]

    alone = group([[r] for r in range(world)])
    tp, pp, dp = (group(layout.groups(axis)) for axis in ("tp", "pp", "dp"))
    whole = group([list(range(world))])
    ends = [sorted({g[0], g[-1]}) for g in _by_stage(layout)]
    embedding = _ends_group(ends, rank, timeout)
    collection = ProcessGroupCollection(
        tp=tp, pp=pp, dp=dp, cp=alone, ep=alone, mp=group(layout.groups("tp", "pp")), dp_cp=dp, tp_cp=tp, tp_ep=tp,
        expt_tp=alone, expt_dp=dp, embd=embedding, pos_embd=None, intra_dp_cp=dp, intra_expt_dp=dp,
        intra_dist_opt=whole, tp_ep_pp=group(layout.groups("tp", "pp")), tp_dp_cp=group(layout.groups("tp", "dp")),
    )  # fmt: skip
    micro = layout.micro_dp_groups()
    micro_dp = group(micro) if len(micro[0]) > 1 else None
    return Groups(layout, rank, layout.coordinates[rank], collection, micro_dp)


def _by_stage(layout: Layout) -> list[list[int]]:
    return [sorted(g, key=lambda r: layout.coordinates[r].pp) for g in layout.groups("pp")]


def _ends_group(ends: list[list[int]], rank: int, timeout: timedelta) -> dist.ProcessGroup | None:
    """Group the first and the last stage (tied embeddings); None on the stages between."""
    mine = None
    for ranks in ends:
        made = dist.new_group(ranks, timeout=timeout)
        if rank in ranks:
            mine = made
    return mine
