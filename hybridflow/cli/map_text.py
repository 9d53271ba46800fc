"""A device mapping as lines of a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from hybridflow.cli.plan_bars import seconds_text, size_text, spread_text
from hybridflow.cli.plan_text import hardware_text, step_lines
from hybridflow.config.schema import Device
from hybridflow.errors import counted
from hybridflow.observe.terminal import cell
from hybridflow.planning.run_plan import RunPlan
from hybridflow.planning.search.device_mapping import DeviceMapping, MappedRun
from hybridflow.planning.search.placement_settings import settings_of
from hybridflow.planning.search.step_costs import ROLLOUT
from hybridflow.scheduling import policy_of

MOST = 8  # runners-up that are told of
LEAST = 1e-3  # of a step, that a difference is told from on
UNFIT = 4  # ways to colocate the roles that do not fit


def headline(found: DeviceMapping) -> str:
    """Say in a line what was found."""
    best = found.best
    return (
        f"hybridflow map: {counted(found.devices, 'device')} of {found.hardware.name}, a step of "
        f"{spread_text(best.step.seconds)} predicted"
    )


def lines_of(found: DeviceMapping, now: RunPlan, refused: Mapping[str, str], seconds: float) -> Iterator[Text | Table]:
    """Yield the lines of a mapping.

    Args:
        now: the placement in the settings; without a step, if it could not be run.
        refused: schedules that the run cannot have, and why.
        seconds: that the search took.
    """
    best = found.best
    yield cell(headline(found), "bold")
    yield cell(hardware_text(found.hardware), "dim")
    ways = len(found.found) + len(found.unfit)
    yield cell(
        f"{counted(ways, 'way')} to colocate the roles, {len(found.unfit)} of which do not fit; "
        f"{found.looked_at:,} plans of roles; {seconds_text(seconds)}",
        "dim",
    )
    yield Text("")
    yield _roles(found, best)
    yield cell(_schedule_text(best), "dim")
    yield Text("")
    yield from step_lines(best.step, best.arrangement.pools)
    if now.step is not None and now.step.seconds.mean:
        ratio = now.step.seconds.mean / best.step.seconds.mean
        yield cell(
            f"the placement in the settings, of {counted(now.placement.slots, 'slot')}, would take "
            f"{spread_text(now.step.seconds)}, {ratio:.2f} times as long"
        )
    elif now.step is None:
        yield cell("the placement in the settings is none that could be run; hybridflow plan says why", "dim")
    if found.bound:
        yield cell(
            f"no placement composes to less than {seconds_text(found.bound)} a step; the best found "
            f"composes to {seconds_text(found.found[0].seconds)}: a gap of {found.gap:.2%}"
        )
    if len(found.runs) > 1:
        yield Text("")
        yield cell("runners-up", "bold")
        for run in found.runs[1 : MOST + 1]:
            yield cell(_runner_up(run, best))
    for unfit in found.unfit[:UNFIT]:
        yield cell(f"does not fit: {_sets(unfit.candidate.sets)}: {unfit.why}", "dim")
    for name, why in refused.items():
        yield cell(f"not with schedule {name}: {why}", "dim")


def _schedule_text(run: MappedRun) -> str:
    """Say what a schedule means for the rows that a step learns from."""
    behind = policy_of(run.schedule, 1, **{**run.spec.schedule_changes, "minibatches": 1}).max_staleness
    if not behind:
        return f"schedule {run.schedule}: rows are sampled with the weights that a step begins with"
    return (
        f"schedule {run.schedule}: rows may be sampled with weights that are {counted(behind, 'version')} older than "
        "a step's; --schedules sync allows none"
    )


def _roles(found: DeviceMapping, run: MappedRun) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("pool", "devices", "role", "tensor", "pipeline", "data", "generates", "micro-batch", "recompute"):
        table.add_column(name, justify="left" if name in ("pool", "role", "generates", "recompute") else "right")
    table.add_column("memory of a device", justify="right")
    peaks = {slot.pool: slot for slot in run.memory}
    for pool, devices in run.arrangement.pools.items():
        for number, role in enumerate(run.arrangement.on(pool)):
            slot = peaks[pool]
            memory = f"{size_text(slot.peak)} of {size_text(slot.device)}"
            first = (pool, str(devices), memory) if number == 0 else ("", "", "")
            on_gpu = found.hardware.device is Device.gpu
            table.add_row(cell(first[0]), first[1], cell(role), *_cells(run, role, on_gpu=on_gpu), first[2])
    return table


def _cells(run: MappedRun, role: str, *, on_gpu: bool) -> tuple[str, ...]:
    layout = run.arrangement.seats[role].layout
    if role not in run.spec.models and role != ROLLOUT:
        return ("", "", str(layout.data), "", "", "")
    tensor, pipeline = layout.generation_sizes
    generates = layout.generation is not None or role == ROLLOUT
    text = f"{counted(layout.replicas, 'replica')} of {tensor} x {pipeline}" if generates else ""
    if generates and on_gpu:
        text += f", {run.spec.memory_fraction} of the memory"
    model = run.spec.models.get(role)
    own = (f"{model.max_tokens_per_rank:,}", model.recompute.value) if model else ("", "")
    return (str(layout.tensor), str(layout.pipeline), str(layout.data), text, *own)


def _runner_up(run: MappedRun, best: MappedRun) -> str:
    """Say how much longer a placement takes, and what of it."""
    more = run.step.seconds.mean / best.step.seconds.mean - 1
    sets = _sets(run.found.candidate.sets, run.found.devices)
    return f"  +{more:.1%}  {run.schedule}  {sets}: {', '.join(_losses(run, best))}"


def _losses(run: MappedRun, best: MappedRun) -> list[str]:
    """Name the two phases that take most longer than in the best, and the pool that waits most."""
    theirs = _phases(best)
    more = {name: seconds - theirs.get(name, 0.0) for name, seconds in _phases(run).items()}
    least = LEAST * run.step.seconds.mean
    worst = sorted(more, key=lambda name: -more[name])[:2]
    told = [f"{name} +{seconds_text(more[name])}" for name in worst if more[name] > least]
    pool = max(run.step.idle, key=lambda name: run.step.idle[name])
    if len(run.step.idle) > 1 and run.step.idle[pool] > least:
        told.append(f"pool {pool} idle {seconds_text(run.step.idle[pool])}")
    return told or ["as fast, and found later"]


def _phases(run: MappedRun) -> dict[str, float]:
    """Return the seconds of a step's calls."""
    return {call: spread.mean for call, spread in run.step.phases.items()}


def _sets(sets: tuple[tuple[str, ...], ...], devices: tuple[int, ...] = ()) -> str:
    names = [" + ".join(roles) for roles in sets]
    return (
        " | ".join(f"{name} {count}" for name, count in zip(names, devices, strict=True))
        if devices
        else " | ".join(names)
    )


def to_json(found: DeviceMapping, now: RunPlan, refused: Mapping[str, str]) -> dict[str, Any]:
    """Return a mapping as plain data; docs/map.md says what its keys mean."""
    return {
        "devices": found.devices,
        "hardware": found.hardware.name,
        "settings": settings_of(found.best, found.best.schedule),
        "runs": [_run(run) for run in found.runs],
        "now": asdict(now.step.seconds) if now.step else None,
        "unfit": [{"sets": unfit.candidate.sets, "why": unfit.why} for unfit in found.unfit],
        "refused": dict(refused),
        "bound": found.bound or None,
        "gap": found.gap if found.bound else None,
        "plans": found.looked_at,
    }


def _run(run: MappedRun) -> dict[str, Any]:
    return {
        "schedule": run.schedule,
        "sets": run.found.candidate.sets,
        "devices": run.found.devices,
        "composed_s": run.found.seconds,
        "step": {
            "seconds": asdict(run.step.seconds),
            "phases": {name: asdict(spread) for name, spread in run.step.phases.items()},
            "idle": dict(run.step.idle),
        },
        "memory": {slot.pool: {"peak": slot.peak, "device": slot.device} for slot in run.memory},
        "roles": {
            role: {
                "pool": seat.pool,
                "tensor": seat.layout.tensor,
                "pipeline": seat.layout.pipeline,
                "data": seat.layout.data,
                "generation": seat.layout.generation,
            }
            for role, seat in run.arrangement.seats.items()
        },
    }
