"""RunPlan: everything that is said of a run before it starts, as one value: who is where, what it takes and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from hybridflow.config.schema import Device
from hybridflow.placement import Placement
from hybridflow.planning import plan_remarks
from hybridflow.planning.arrangement import Arrangement, arrangement_of
from hybridflow.planning.estimates import SlotMemory, StepBytes, StepEstimate
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.plan_remarks import Remark
from hybridflow.planning.run_spec import RunSpec
from hybridflow.planning.slot_grid import WIDEST, Run, blocks_of, packed_nodes, runs_of
from hybridflow.planning.slot_memory import slot_memory
from hybridflow.planning.step_bytes import step_bytes
from hybridflow.planning.step_simulation import DRAWS, estimate_step

SIMULATED_ROWS = 2**15  # of all steps together: of steps with very many rows fewer are drawn, to be as quick


@dataclass(frozen=True)
class RunPlan:
    """Plan of a run.

    Attributes:
        name: of the run.
        hardware: that it is for; None: that is not known.
        nodes: by pool, the node of each slot.
        memory: of the fullest slot of each pool.
        bytes: that a step moves.
        step: its time; None: nothing is known of the hardware.
        warnings: what may be better.
        left_out: passes that the settings make unnecessary.
        notes: what is expected of rows, in words.
    """

    name: str
    placement: Placement
    nodes: Mapping[str, tuple[int, ...]]
    hardware: Hardware | None = None
    memory: tuple[SlotMemory, ...] = ()
    bytes: StepBytes | None = None
    step: StepEstimate | None = None
    warnings: tuple[Remark, ...] = ()
    left_out: tuple[Remark, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def arrangement(self) -> Arrangement:
        """Return who sits where."""
        return arrangement_of(self.placement)

    def runs(self, widest: int = WIDEST) -> list[Run]:
        """Return the slots as they lie on nodes, in blocks of at most so many, with what repeats put together."""
        return runs_of([*blocks_of(self.arrangement, self.nodes, widest)])

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
            "memory": [{**asdict(slot), "peak": slot.peak} for slot in self.memory],
            "bytes": asdict(self.bytes) if self.bytes else None,
            "step": asdict(self.step) if self.step else None,
            "warnings": [asdict(remark) for remark in self.warnings],
            "left_out": [asdict(remark) for remark in self.left_out],
            "notes": list(self.notes),
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


def estimated(plan: RunPlan, spec: RunSpec) -> RunPlan:
    """Add what a run computes, and what that takes, to a plan of where it does."""
    where = plan.arrangement
    memory = slot_memory(spec, where, plan.hardware)
    draws = min(DRAWS, max(2, SIMULATED_ROWS // spec.rows))
    step = estimate_step(spec, where, plan.hardware, draws=draws) if plan.hardware else None
    device = plan.hardware.device if plan.hardware else Device.auto
    warnings = [
        *plan.warnings,
        *plan_remarks.of_flow(spec),
        *plan_remarks.of_memory(memory, spec, where),
        *plan_remarks.of_nodes(where, plan.nodes),
        *plan_remarks.of_rows(spec, where, device),
        *plan_remarks.of_pipelines(spec, where),
        *plan_remarks.of_updates(spec.flow),
        *(plan_remarks.of_idle(step, spec, where) if step else ()),
    ]
    return replace(
        plan,
        memory=memory,
        bytes=step_bytes(spec, where),
        step=step,
        warnings=tuple(warnings),
        left_out=(*plan.left_out, *plan_remarks.of_scores(spec.flow)),
        notes=spec.notes,
    )


def nodes_of(placement: Placement, hardware: Hardware | None) -> dict[str, tuple[int, ...]]:
    """Return by pool the node of each slot.

    Slots that are processes share the cores of one node, unless their pool says on how many it is. A pool of graders
    takes no devices, so it is beside those of the first node.
    """
    processes = hardware is None or hardware.cores > 0
    pools = {pool.name: pool.bundles for pool in placement.pools if processes or not pool.light}
    per_node = max(placement.slots, 1) if hardware is None or processes else hardware.devices_per_node
    nodes = packed_nodes(pools, per_node)
    return {pool.name: tuple(nodes.get(pool.name, [0] * pool.slots)) for pool in placement.pools}
