"""What a plan remarks: settings that may be better, each with its key, and passes that settings leave out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from hybridflow.config.schema import Device
from hybridflow.errors import counted
from hybridflow.planning.arrangement import Arrangement
from hybridflow.planning.estimates import SlotMemory, StepEstimate
from hybridflow.planning.run_spec import RunSpec, Work

GIB = 2**30
FULL = 0.95  # of a device's memory: what the allocator cannot use, and what nobody counts
IDLE = 0.5  # of a step
FEW_ROWS = 8  # of a replica on a GPU, below which a token costs what reading the weights costs, whatever its rows


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


def of_memory(memory: Sequence[SlotMemory]) -> Iterator[Remark]:
    """Yield pools whose slots need more than they have, or nearly."""
    for slot in (slot for slot in memory if slot.device and slot.peak > FULL * slot.device):
        phase = max(slot.phases, key=lambda name: sum(slot.phases[name].values()), default="")
        parts = {**slot.held, **{f"{phase}: {what}": size for what, size in slot.phases.get(phase, {}).items()}}
        largest = sorted(parts, key=lambda part: -parts[part])[:3]
        told = ", ".join(f"{part} {parts[part] / GIB:.1f}" for part in largest)
        does = "does not fit" if slot.peak > slot.device else "hardly fits"
        yield Remark(
            f"placement.pools.{slot.pool}",
            f"it {does}: {slot.peak / GIB:.1f} of {slot.device / GIB:.1f} GiB of a slot"
            f"{f' in {phase}' if phase else ''}; most are {told}. {_less(largest[0])}",
        )


def of_nodes(arrangement: Arrangement, nodes: Mapping[str, Sequence[int]]) -> Iterator[Remark]:
    """Yield roles whose tensor groups do not lie inside of a node, whose links are the fast ones."""
    for role, seat in arrangement.seats.items():
        groups = [sorted({nodes[seat.pool][rank] for rank in group}) for group in seat.layout.groups("tp")]
        if apart := [on_nodes for on_nodes in groups if len(on_nodes) > 1]:
            yield Remark(
                f"{role}.parallel.tensor",
                f"{len(apart)} of {counted(len(groups), 'tensor group')} lie across nodes, the first on "
                f"{' and '.join(map(str, apart[0]))}; tensor ranks exchange activations in every layer: give a size "
                "that divides the slots of a node",
            )


def of_idle(step: StepEstimate, arrangement: Arrangement, schedule: str) -> Iterator[Remark]:
    """Yield pools that have nothing to do for more than half of a step."""
    seconds = step.seconds.mean
    for pool, idle in step.idle.items():
        if len(arrangement.pools) == 1 or idle <= IDLE * seconds:
            continue
        apart = "rollout" in arrangement.seats
        ways = []
        if apart and schedule == "sync":
            ways.append("trainer.schedule=async lets generation and learning go on together")
        if apart and "actor" in arrangement.on(pool) and not arrangement.lends:
            ways.append("placement.lend_idle_slots=true lets it generate meanwhile")
        if arrangement.pools[pool] > 1:
            ways.append("fewer slots would do")
        ways.append("its roles may share another pool (placement.roles)")
        yield Remark(
            f"placement.pools.{pool}",
            f"{counted(arrangement.pools[pool], 'slot')} ({', '.join(arrangement.on(pool))}) idle {idle / seconds:.0%} "
            f"of a step, {idle:.3g} of {seconds:.3g} s; {'; '.join(ways)}",
        )


def of_rows(spec: RunSpec, arrangement: Arrangement, device: Device) -> Iterator[Remark]:
    """Yield generation replicas that get fewer rows than they could decode in the same time."""
    calls = [call for call in spec.flow if call.work is Work.generate]
    if not calls:
        return
    replicas = arrangement.seats[arrangement.generator].layout.replicas
    rows = max(call.rows for call in calls)
    each = rows / replicas
    enough = min(spec.max_concurrent_rows, FEW_ROWS if device is Device.gpu else 1)
    if each < enough:
        yield Remark(
            "rollout.parallel.tensor",
            f"{counted(rows, 'row')} for {counted(replicas, 'generation replica')} are {each:.3g} each, and one may "
            f"decode {spec.max_concurrent_rows} together; give fewer, larger replicas, or more rows "
            "(algorithm.prompts_per_step)",
        )


def of_pipelines(spec: RunSpec, arrangement: Arrangement) -> Iterator[Remark]:
    """Yield roles whose pipeline is empty for the larger part: of m micro-batches on p stages (p − 1) / (m + p − 1)."""
    tokens = spec.prompt_tokens.mean + spec.response_tokens.mean
    told: set[str] = set()
    for call in spec.flow:
        if call.work not in (Work.score, Work.train) or call.role not in spec.models or call.role in told:
            continue
        layout = arrangement.seats[call.role].layout
        rows = call.rows / layout.data
        budget = spec.models[call.role].max_tokens_per_rank
        micro_batches = max(1, ceil(rows * tokens / budget))
        empty = (layout.pipeline - 1) / (micro_batches + layout.pipeline - 1)
        if empty > IDLE:
            told.add(call.role)
            yield Remark(
                f"{call.role}.max_tokens_per_rank",
                f"{budget} tokens make {counted(micro_batches, 'micro-batch', 'micro-batches')} of the {rows:.3g} rows "
                f"of a rank in {call.method}, so {layout.pipeline} pipeline stages stand {empty:.0%} empty; give fewer "
                f"tokens, {call.role}.parallel.pipeline fewer stages, or algorithm.minibatches fewer parts",
            )


def of_roles(named: Sequence[str], called: Sequence[str]) -> Iterator[Remark]:
    """Yield roles of the algorithm that these settings make unnecessary, with what they would do."""
    for role in named:
        if role not in called:
            yield Remark(
                "algorithm.reward_kl_coef",
                f"{role} is not started and scores nothing, as no KL to it is used (this and "
                "algorithm.policy_loss.kl_coef are 0)",
            )


def _less(part: str) -> str:
    """Say what makes a part of memory smaller; parts are `role: what` or `role.method: what`."""
    where, _, what = part.partition(": ")
    role = where.partition(".")[0]
    if "cache" in what:
        return "Give rollout.gpu_memory_fraction less"
    if "activation" in what or "logit" in what or "recompute" in what:
        return f"Give {role}.max_tokens_per_rank less, {role}.recompute=full, or {role}.parallel.tensor more"
    if "optimizer" in what or "master" in what or "moment" in what:
        return f"{role}.optimizer.distributed=true shares it out, {role}.offload.optimizer=true moves it away meanwhile"
    return f"Give {role}.parallel.tensor or .pipeline more, or the role a pool of its own"
