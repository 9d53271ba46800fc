"""RunPlan: everything that is said of a run before it starts, as one value: who is where, what it takes and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from hybridflow.placement import Placement
from hybridflow.planning.arrangement import Arrangement, arrangement_of
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.slot_grid import Run, blocks_of, packed_nodes, runs_of


@dataclass(frozen=True)
class Remark:
    """What to think about before the start.

    Attributes:
        key: of the setting that changes it.
        text: what was found, and what to do.
    """

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"


@dataclass(frozen=True)
class RunPlan:
    """Plan of a run.

    Attributes:
        name: of the run.
        hardware: that it is for; None: that is not known.
        nodes: by pool, the node of each slot.
        warnings: what may be better.
        left_out: passes that the settings make unnecessary.
    """

    name: str
    placement: Placement
    nodes: Mapping[str, tuple[int, ...]]
    hardware: Hardware | None = None
    warnings: tuple[Remark, ...] = ()
    left_out: tuple[Remark, ...] = ()

    @cached_property
    def arrangement(self) -> Arrangement:
        """Return who sits where."""
        return arrangement_of(self.placement)

    @cached_property
    def runs(self) -> list[Run]:
        """Return the slots as they lie on nodes, with what repeats put together."""
        return runs_of([*blocks_of(self.arrangement, self.nodes)])

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data; docs/placement.md says what its keys mean."""
        return {
            "name": self.name,
            "hardware": asdict(self.hardware) if self.hardware else None,
            "pools": {
                pool.name: {"slots": pool.slots, "device": pool.device.value, "nodes": list(self.nodes[pool.name])}
                for pool in self.placement.pools
            },
            "roles": {role.name: self._role(role.name) for role in self.placement.roles},
            "warnings": [asdict(remark) for remark in self.warnings],
            "left_out": [asdict(remark) for remark in self.left_out],
        }

    def _role(self, name: str) -> dict[str, Any]:
        role = self.placement.role(name)
        layout = role.layout
        tensor, pipeline = layout.generation_sizes
        generates = {"tensor": tensor, "pipeline": pipeline, "replicas": layout.replicas}
        return {
            "pool": role.pool,
            "worker": role.worker,
            "tensor": layout.tensor,
            "pipeline": layout.pipeline,
            "data": layout.data,
            "context": layout.context,
            "generation": generates if layout.generation is not None or name == "rollout" else None,
            "ranks": [asdict(at) for at in layout.coordinates],
        }


def nodes_of(placement: Placement, hardware: Hardware | None) -> dict[str, tuple[int, ...]]:
    """Return by pool the node of each slot: all on one where slots are processes that share its cores."""
    pools = {pool.name: pool.slots for pool in placement.pools}
    per_node = hardware.devices_per_node if hardware and not hardware.cores else max(placement.slots, 1)
    return {name: tuple(nodes) for name, nodes in packed_nodes(pools, per_node).items()}
