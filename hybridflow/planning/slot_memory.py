"""Memory of slots: the bytes of tensors that a placement keeps on each, by what they are for and by phase.

Roles of a pool share its slots. Each keeps something there between its calls, and has more while one of them runs:
`role_bytes`, which a search asks for many times. A slot is at its fullest in the call that has most beside what all
roles keep: `slot_memory`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from hybridflow.config.schema import Device
from hybridflow.parallel.layout import Layout
from hybridflow.planning.arrangement import Arrangement
from hybridflow.planning.estimates import SlotMemory
from hybridflow.planning.generation_bytes import add_generation
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.run_spec import SYNC, RoleModel, RunSpec, Work
from hybridflow.planning.seated_role import Seated
from hybridflow.planning.training_bytes import add_training

Bytes = Mapping[str, float]


@dataclass(frozen=True)
class RoleBytes:
    """Bytes of a role on one rank.

    Attributes:
        kept: between its calls, by what it is.
        beside: what it has beside that, by the kind of work that a call gives it, and in a weight sync.
    """

    kept: Bytes
    beside: Mapping[str, Bytes]

    @cached_property
    def rest(self) -> float:
        """Return the bytes between its calls."""
        return sum(self.kept.values())

    @cached_property
    def most(self) -> float:
        """Return the most bytes that a call has beside those."""
        return max((sum(one.values()) for one in self.beside.values()), default=0.0)

    @property
    def peak(self) -> float:
        """Return the bytes that a slot needs which has this role alone."""
        return self.rest + self.most


def role_bytes(
    model: RoleModel,
    layout: Layout,
    spec: RunSpec,
    hardware: Hardware | None = None,
    *,
    only_generates: bool = False,
) -> RoleBytes:
    """Return the bytes of a role on its fullest rank.

    A pool's slot takes at most the `rest` of all its roles, and the `most` of the one that has most.

    Args:
        only_generates: of a role whose pool is generation's own; its layout is that of its replicas.

    Raises ShardingError for sizes that the model does not allow.
    """
    return _fullest(Seated(model, layout, spec.load, *_device(spec, hardware), only_generates))


def slot_memory(spec: RunSpec, arrangement: Arrangement, hardware: Hardware | None) -> tuple[SlotMemory, ...]:
    """Return the fullest slot of each pool. Raises ShardingError as `role_bytes`.

    Roles without a model are processes without tensors; a pool of such has nothing.
    """
    return tuple(_fullest_slot(pool, spec, arrangement, hardware) for pool in arrangement.pools)


def _device(spec: RunSpec, hardware: Hardware | None) -> tuple[Device, float]:
    if hardware is not None:
        return hardware.device, hardware.memory_bytes
    return (Device.cpu if spec.kv_cache_bytes else Device.gpu), 0.0


def pool_bytes(spec: RunSpec, arrangement: Arrangement, pool: str) -> float:
    """Return the bytes of all slots of a pool of CPUs, each at its fullest."""
    return sum(slot.peak * count for slot, count in _slots(pool, spec, arrangement, Device.cpu, 0.0))


def _fullest_slot(pool: str, spec: RunSpec, arrangement: Arrangement, hardware: Hardware | None) -> SlotMemory:
    device, memory = _device(spec, hardware)
    slots = (slot for slot, _ in _slots(pool, spec, arrangement, device, memory))
    return max(slots, key=lambda slot: slot.peak, default=SlotMemory(pool, {}, {}, memory))


def _slots(
    pool: str, spec: RunSpec, arrangement: Arrangement, device: Device, memory: float
) -> Iterator[tuple[SlotMemory, int]]:
    """Yield the slots that differ, by the stages of the roles that are on them, and how many there are of each."""
    here = {
        role: Seated(
            spec.models["actor" if role == "rollout" else role],
            arrangement.seats[role].layout,
            spec.load,
            device,
            memory,
            role == "rollout",
            role == "actor" and arrangement.generator == "rollout",
        )
        for role in arrangement.on(pool)
        if role in spec.models or role == "rollout"
    }
    places = zip(*(role.layout.coordinates for role in here.values()), strict=False)
    for stages, count in Counter(tuple(at.pp for at in place) for place in places).items():
        found = {name: stage_bytes(role, stage) for (name, role), stage in zip(here.items(), stages, strict=True)}
        yield SlotMemory(pool, _kept(found), _phases(spec, arrangement, found), memory), count


def _kept(found: Mapping[str, RoleBytes]) -> Bytes:
    return {f"{role}: {what}": size for role, own in found.items() for what, size in own.kept.items() if size}


def _phases(spec: RunSpec, arrangement: Arrangement, found: Mapping[str, RoleBytes]) -> dict[str, Bytes]:
    """Return the phases of a step in its order: its calls on roles that are here, and the weight sync."""
    phases: dict[str, Bytes] = {}
    for call in spec.flow:
        at_work = [call.role]
        if call.work is Work.generate and call.role == "actor":
            at_work = [arrangement.generator, *["actor"] * arrangement.lends]
        for role in at_work:
            if role in found and call.work in found[role].beside:
                phases[f"{call.role}.{call.method}"] = found[role].beside[call.work]
    syncs = [own.beside[SYNC] for own in found.values() if SYNC in own.beside]
    return phases | ({SYNC: max(syncs, key=lambda sync: sum(sync.values()))} if syncs else {})


@lru_cache(maxsize=2**17)
def _fullest(role: Seated) -> RoleBytes:
    ends = dict.fromkeys((0, role.layout.pipeline - 1))
    return max((stage_bytes(role, stage) for stage in ends), key=lambda one: one.peak)


def stage_bytes(role: Seated, stage: int) -> RoleBytes:
    """Return the bytes of a role on a rank of one of its pipeline stages."""
    kept: dict[str, float] = {}
    beside: dict[str, dict[str, float]] = {}
    if not role.only_generates:
        add_training(kept, beside, role, stage)
    if role.only_generates or role.layout.generation is not None:
        add_generation(kept, beside, role, stage)
    return RoleBytes(kept, beside)
