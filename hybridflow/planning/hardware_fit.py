"""A hardware file's numbers from what was measured: arithmetic, memory and links as they are, then overheads.

The simulators say what a measured call takes without overheads, and how much each overhead adds; that is linear. So the
overheads are those, none below 0, with which the calls come out best: the sum of relative errors is least, which a few
calls that something disturbed do not move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from math import ceil, log2
from statistics import median

import numpy as np

from hybridflow.config.schema import DType
from hybridflow.parallel.layout import Layout
from hybridflow.planning.call_costs import Simulators
from hybridflow.planning.hardware import Curve, Efficiency, Hardware, Link, Overheads
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.machine_measurements import CallTime, Measurements
from hybridflow.planning.run_spec import FlowCall, RoleModel, RunSpec, Work
from hybridflow.planning.simulated_pools import DRIVER, Job, SimulatedPools

WORK = {
    "generate_sequences": Work.generate,
    "compute_reward": Work.grade,
    "compute_log_prob": Work.score,
    "compute_ref_log_prob": Work.score,
    "update_actor": Work.train,
}
FITTED = tuple(field.name for field in fields(Overheads) if field.name not in ("call", "dispatch", "backward"))
BACKWARD = 2.0  # products of a backward pass, by the forward's
ROUNDS = 40
SMALL = 0.01  # relative errors below it count as if they were as large
ALIKE = 1.3  # sizes that are nearer than this are one point of a curve


def hardware_of(found: Measurements, name: str, source: str) -> Hardware:
    """Make the hardware of what was measured."""
    peaks = {dtype: max(2 * m * k * n / seconds for m, k, n, seconds in rows) for dtype, rows in found.products.items()}
    memory = max(2 * size / seconds for size, seconds in found.copies[-2:])  # the largest, which caches do not have
    within, share = _link(found)
    hardware = Hardware(
        name=name,
        source=source,
        device=found.device,
        devices_per_node=found.devices_per_node,
        memory_bytes=found.memory_bytes,
        memory_bytes_per_s=memory,
        flops=peaks,
        within=within,
        across=within,
        cores=found.cores,
        busy=_busy(found),
        crowded_latency_s=_crowded_latency_s(found),
        caches=Curve(
            tuple(float(size) for size, _ in found.copies),
            tuple(max(1.0, round(2 * size / seconds / memory, 2)) for size, seconds in found.copies),
        ),
        efficiency=Efficiency(
            matmul=_curve([_reached(*timed) for timed in found.products[found.dtype]], peaks[found.dtype]),
            attention=_curve([_attended(*timed) for timed in found.attention], peaks[DType.float32]),
            link=share,
        ),
    )
    return replace(hardware, overheads=fitted_overheads(hardware, found))


def _reached(m: float, k: float, n: float, seconds: float) -> tuple[float, float]:
    """Return the size of a product as a curve has it, and its operations a second."""
    return float(np.cbrt(m * k * n)), 2 * m * k * n / seconds


def _attended(rows: float, heads: float, tokens: float, width: float, seconds: float) -> tuple[float, float]:
    return tokens, 2 * rows * heads * tokens**2 * width / seconds


def _curve(reached: Sequence[tuple[float, float]], most: float) -> Curve:
    """Return the shares of `most` that were reached, by size; sizes that are alike become one."""
    groups: list[list[tuple[float, float]]] = []
    for size, value in sorted(reached):
        if not groups or size > ALIKE * groups[-1][0][0]:
            groups.append([])
        groups[-1].append((size, value))
    sizes = tuple(round(float(median(size for size, _ in group)), 1) for group in groups)
    return Curve(sizes, tuple(round(min(1.0, float(median(v for _, v in group)) / most), 4) for group in groups))


def _link(found: Measurements) -> tuple[Link, Curve]:
    """Return the way between two ranks, as all-reductions find it; where there is only one, its memory is the way."""
    timed = found.collectives.get(("all_reduce", 2))
    if not timed:
        return Link(1e-5, found.copies[-1][0] / found.copies[-1][1]), Curve((1.0,), (1.0,))
    latency = min(seconds for _, seconds in timed) / (2 * ceil(log2(2)))
    sent = [(size, size / max(seconds - 2 * latency, seconds / 10)) for size, seconds in timed if size >= 2**16]
    most = max(speed for _, speed in sent)
    return Link(latency, most), _curve(sent, most)


def _busy(found: Measurements) -> float:
    """Return how many times as long work takes that is done on all cores at once."""
    if found.cores < 2 or found.cores not in found.together:
        return 1.0
    return max(1.0, round(found.together[found.cores] / found.together[1], 3))


def _crowded_latency_s(found: Measurements) -> float:
    """Return the latency among more ranks than cores, as a simulator takes it that lets each rank go slower too."""
    ranks, timed = next(
        (
            (size, timed)
            for (kind, size), timed in found.collectives.items()
            if kind == "all_reduce" and size > found.cores
        ),
        (0, []),
    )
    if not found.cores or not timed:
        return 0.0
    return min(seconds for _, seconds in timed) / (2 * ceil(log2(ranks))) / (ranks / found.cores)


def fitted_overheads(hardware: Hardware, found: Measurements) -> Overheads:
    """Return the overheads with which the measured calls come out best; those that no call has stay as usual."""
    none = replace(Overheads(**{field.name: 0.0 for field in fields(Overheads)}), backward=BACKWARD)
    call = max(0.0, float(median(timed.wall_s - timed.seconds for timed in found.calls)))
    base = predicted(replace(hardware, overheads=replace(none, call=call)), found)
    columns = [
        predicted(replace(hardware, overheads=replace(none, call=call, **{name: 1.0})), found) - base for name in FITTED
    ]
    measured = np.array([timed.wall_s for timed in found.calls])
    chosen = least_deviations(np.stack(columns, axis=1) / measured[:, None], 1.0 - base / measured)
    return Overheads(
        **{
            "call": float(f"{call:.3g}"),
            "dispatch": float(f"{_dispatch_s(found, call):.3g}"),
            "backward": BACKWARD,
            **dict(zip(FITTED, (float(f"{value:.3g}") for value in chosen), strict=True)),
        }
    )


def _dispatch_s(found: Measurements, call: float) -> float:
    """Return the driver's seconds of a call with which flows that compute nothing take what they took."""
    timed = found.flows.get(1)
    if not timed:
        return 0.0
    scored, learned = (int(count) for count in timed[0][:2])
    measured = float(median(flow[-1] for flow in timed))
    low, high = 0.0, measured
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if empty_flow_s(scored, learned, call, middle) < measured else (low, middle)
    return low


def empty_flow_s(scored: int, learned: int, call: float, dispatch: float) -> float:
    """Return the seconds of a flow whose calls on a pool compute nothing: rows are sampled, scored, learned from."""
    pools = SimulatedPools()
    after = [(), *[(0,)] * scored, *[(scored,)] * learned]
    jobs = []
    for waits in after:
        jobs.append(Job(DRIVER, DRIVER, "dispatch", dispatch, after=tuple(2 * place + 1 for place in waits)))
        jobs.append(Job("main", "profiler", "nothing", call, after=(len(jobs) - 1,)))
    pools.give(jobs)
    now = 0.0
    while at_work := pools.at_work():
        worked = pools.next_end(at_work)
        pools.advance(at_work, now, worked)
        now += worked
        while pools.end(at_work, now) is not None:
            at_work = pools.at_work()
    return now


def predicted(hardware: Hardware, found: Measurements) -> np.ndarray:
    """Return the seconds that the simulators say of each measured call."""
    simulators = Simulators(hardware)
    return np.array([_predicted_s(simulators, call, found) for call in found.calls])


def _predicted_s(simulators: Simulators, timed: CallTime, found: Measurements) -> float:
    model = RoleModel(timed.shape, found.dtype, trains=True, max_tokens_per_rank=timed.micro_tokens)
    work = WORK.get(timed.method)
    responses = Lengths.of(timed.response_tokens or (1,))
    flow = (FlowCall("actor", timed.method, work, True, timed.rows),) if work else ()
    spec = RunSpec(
        flow, {"actor": model}, timed.rows, 1, Lengths((float(timed.prompt_tokens),)), responses,
        int(responses.max), "sync", {}, found.concurrent_rows, found.kv_cache_bytes,
    )  # fmt: skip
    if not flow:
        return simulators.sync_s(model, Layout(), None, spec).mean
    return simulators.call_s(flow[0], None if work is Work.grade else model, Layout(), spec).mean


def least_deviations(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return x >= 0 for which the sum of |columns · x - values| is about least: least squares, weighed anew.

    Args:
        columns: [n, k].
        values: [n].
    """
    weights = np.ones(len(values))
    chosen = np.zeros(columns.shape[1])
    for _ in range(ROUNDS):
        chosen = nonnegative_least_squares(columns * weights[:, None], values * weights)
        weights = 1 / np.sqrt(np.maximum(np.abs(columns @ chosen - values), SMALL))
    return chosen


def nonnegative_least_squares(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return x >= 0 for which |columns · x - values|² is least (Lawson and Hanson 1974, chapter 23)."""
    scale = np.maximum(np.linalg.norm(columns, axis=0), 1e-30)
    scaled = columns / scale
    chosen = np.zeros(columns.shape[1])
    free = np.zeros(columns.shape[1], dtype=bool)
    for _ in range(10 * len(chosen)):
        slope = np.where(free, -np.inf, scaled.T @ (values - scaled @ chosen))
        if slope.max() < 1e-9:
            break
        free[slope.argmax()] = True
        while True:
            wanted = np.zeros(len(chosen))
            wanted[free] = np.linalg.lstsq(scaled[:, free], values, rcond=None)[0]
            below = free & (wanted <= 0)
            if not below.any():
                break
            way = min(1.0, float((chosen[below] / (chosen[below] - wanted[below])).min()))
            chosen += way * (wanted - chosen)
            free &= chosen > 1e-12
        chosen = wanted
    return chosen / scale
