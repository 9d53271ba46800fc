"""The time of calls; see `benchmarks.dispatch`."""

from __future__ import annotations

from collections.abc import Sequence
from time import process_time
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import ray

from benchmarks import dispatch_roles
from benchmarks.dispatch_roles import Bench, PlainActor
from benchmarks.pairs import Work, paired
from hybridflow.batch import Batch, BatchRef, Metadata, Ragged
from hybridflow.batch.row_operations import even_sizes
from hybridflow.controller import ResourcePool, Supervisor, cluster, put
from hybridflow.controller import supervisor as supervisor_room
from hybridflow.controller.group import group_class
from hybridflow.parallel.layout import Layout
from hybridflow.runtime.messages import CallRequest, Report

PLUGINS = [dispatch_roles.__name__]
ROWS = 1024
RANKS = (2, 8, 32, 128)
SIMULATED = Layout(tensor=8, pipeline=8, data=160)


def noop() -> dict[str, Any]:
    """Nothing, on 8 ranks."""
    with cluster(slots=16):
        supervisor = Supervisor()
        group = ResourcePool("ours", 8, supervisor, plugins=PLUGINS).start_role("bench", Layout(data=8))
        actors = plain_actors(8)
        blob = bytes(len(CallRequest("bench", "noop", ((), {}, ())).encode()))

        def ours() -> None:
            group.noop().get()

        found = paired("noop_ratio", ours, lambda: ray.get([a.noop.remote(blob) for a in actors]), 1000)
        found |= paired("noop_ratio_no_argument", ours, lambda: ray.get([a.noop.remote() for a in actors]), 1000)
        supervisor.collect_metrics()
        return found


def chain() -> dict[str, Any]:
    """Rows there and back."""
    with cluster(slots=10):
        supervisor = Supervisor()
        two = ResourcePool("two", 2, supervisor, plugins=PLUGINS).start_role("bench", Layout(data=2))
        three = ResourcePool("three", 3, supervisor, plugins=PLUGINS).start_role("bench", Layout(data=3))
        couple, trio = plain_actors(2), plain_actors(3)
        found: dict[str, Any] = {}
        for name, size, times in (("chain_ratio", 64 * 2**20, 320), ("chain_ratio_64KiB", 64 * 2**10, 2400)):
            rows = ragged_rows(size)
            made = two.add(put(Batch(x=rows)))
            made.metadata()
            sent = [  # made by actors as ours were: Ray sends a small result inside of a message, but not what is put
                a.add.remote([(0, len(part))], (part.ragged("x").values, part.ragged("x").offsets))
                for a, part in zip(couple, Batch(x=rows).split(2), strict=True)
            ]
            ray.wait(sent, num_returns=2, fetch_local=False)

            def ours(made: BatchRef = made) -> BatchRef:
                back = two.sums(three.add_again(made))
                back.metadata()
                return back

            def ours_drained() -> None:
                ours()
                supervisor.collect_metrics()

            def ours_blind(made: BatchRef = made) -> BatchRef:
                back = two.sums(three.add_again(made))
                ray.wait([run[0].data for s in back.sources for run in s.runs], num_returns=2, fetch_local=False)
                return back

            def blind(sent: list[Any] = sent) -> list[Any]:
                there = [a.add.remote(*ranges(sent, r)) for a, r in zip(trio, spans(2, 3), strict=True)]
                back = [a.sums.remote(*ranges(there, r)) for a, r in zip(couple, spans(3, 2), strict=True)]
                ray.wait(back, num_returns=2, fetch_local=False)
                return back

            def theirs(sent: list[Any] = sent) -> list[Any]:
                there = [a.add_known.remote(*ranges(sent, r)) for a, r in zip(trio, spans(2, 3), strict=True)]
                rows = [chunk for _, chunk in there]
                back = [a.sums_known.remote(*ranges(rows, r)) for a, r in zip(couple, spans(3, 2), strict=True)]
                ray.get([count for count, _ in back])
                return [there, back]

            assert np.array_equal(ours().get().dense("sum"), np.concatenate(ray.get(blind())))
            found |= paired(name, ours, theirs, times)
            found |= paired(f"{name}_drained", ours_drained, theirs, times // 2)
            found |= paired(f"{name}_blind", ours_blind, blind, times // 2)
            found |= paired(f"{name}_known_or_blind", theirs, blind, times // 2)
            supervisor.collect_metrics()
        return found


def ragged_rows(size: int) -> Ragged:
    """Rows of uneven lengths, that many bytes of float32 in all."""
    tokens = size // 4
    cuts = np.sort(np.random.default_rng(0).choice(np.arange(1, tokens), ROWS - 1, replace=False))
    return Ragged(np.zeros(tokens, np.float32), np.concatenate([[0], cuts, [tokens]]))


def spans(producers: int, consumers: int) -> list[list[tuple[int, int, int]]]:
    """For each consumer the runs of rows that it takes: (producer, start, stop)."""
    made, wanted = (np.cumsum([0, *even_sizes(ROWS, n)]).tolist() for n in (producers, consumers))
    return [
        [
            (p, max(made[p], wanted[c]) - made[p], min(made[p + 1], wanted[c + 1]) - made[p])
            for p in range(producers)
            if max(made[p], wanted[c]) < min(made[p + 1], wanted[c + 1])
        ]
        for c in range(consumers)
    ]


def ranges(chunks: Sequence[Any], runs: list[tuple[int, int, int]]) -> list[Any]:
    """Return the arguments of a `PlainActor`'s method."""
    return [[(start, stop) for _, start, stop in runs], *(chunks[producer] for producer, _, _ in runs)]


def cost() -> dict[str, Any]:
    """By the number of ranks. The plain fan-out goes to the same processes, so that 128 of them fit.

    On few cores the time is mostly the ranks' own, who share them with the driver; beside it the driver's CPU time.
    """
    names = ("call_cost_us", "plain_cost_us", "call_driver_cpu_us", "plain_driver_cpu_us")
    found: dict[str, dict[int | str, float]] = {name: {} for name in names}
    for ranks in RANKS:
        with cluster(slots=ranks):
            supervisor = Supervisor()
            pool = ResourcePool("ours", ranks, supervisor, plugins=PLUGINS)
            group = pool.start_role("bench", Layout(data=ranks))

            def ours(group: Any = group) -> None:
                group.noop().get()

            def plain(pool: ResourcePool = pool) -> None:
                ray.get([rank.__ray_ready__.remote() for rank in pool.ranks])  # it returns True and does nothing

            times = 3000 // ranks
            us = paired("cost", ours, plain, times)["cost_us"]
            costs = (us["ours"], us["theirs"], cpu_us(ours, times), cpu_us(plain, times))
            for name, value in zip(names, costs, strict=True):
                found[name][ranks] = value
            supervisor.collect_metrics()
    return {name: by_ranks | {"slope": slope(by_ranks)} for name, by_ranks in found.items()}


def cpu_us(work: Work, times: int) -> float:
    """CPU time of this process, Ray's threads included, in µs a time."""
    begin = process_time()
    for _ in range(times):
        work()
    return round(1e6 * (process_time() - begin) / times, 1)


def slope(cost_us: dict[Any, float]) -> float:
    """Least squares, in µs a rank."""
    return round(float(np.polyfit(list(cost_us), list(cost_us.values()), 1)[0]), 2)


class Coming:
    """A report that is there at once."""

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded


class Stub:
    """A rank that reports at once what a real one would, on as many rows as there are for a replica."""

    def __init__(self, rows: Ragged) -> None:
        nothing, known = Report().encode(), Report((Metadata.of(Batch(y=rows)),), seconds=0.1).encode()
        self.call = SimpleNamespace(remote=lambda order, *objects: Coming(nothing))
        self.call_rows = SimpleNamespace(remote=lambda order, *objects: (Coming(known), object()))


def simulated() -> dict[str, Any]:
    """Measure the driver's own part of a call at 10,240 ranks: CPU time, for it waits for nothing."""
    transport = SimpleNamespace(get=lambda wanted, timeout: [w.encoded for w in wanted], exceptions=ray.exceptions)
    column = Ragged.of([np.zeros(8, np.float32)] * SIMULATED.size)
    replica = Ragged.of([np.zeros(8, np.float32)] * (SIMULATED.size // SIMULATED.data))
    supervisor, ranks = Supervisor(), [Stub(replica) for _ in range(SIMULATED.size)]
    group: Any = group_class(Bench)("bench", Bench, SIMULATED, SimpleNamespace(ranks=ranks), supervisor)
    rows = BatchRef.from_local(Batch(x=column))
    for source in rows.sources:
        source.chunks[0].__dict__["data"] = object()  # what it is in the store

    def nothing() -> None:
        group.noop().get()
        supervisor.collect_metrics()

    def with_rows() -> None:
        group.add(rows).metadata()
        supervisor.collect_metrics()

    with patch.object(supervisor_room, "ray", transport):
        nothing()  # the layout's coordinates are known from now on
        taken = {"noop": cpu_us(nothing, 20), "rows": cpu_us(with_rows, 20)}
    return {
        "simulated_10240_us": taken,
        "simulated_10240_us_a_rank": {name: round(us / SIMULATED.size, 3) for name, us in taken.items()},
    }


def ray_share(found: dict[str, Any]) -> dict[str, float]:
    """Ray's part of a call with rows at 10,240 ranks, as the plain fan-out's cost by the rank foretells it.

    `driver_cpu` is what the driver itself needs, on however many machines the ranks are; `time` has in it the work of
    ranks that share this machine's cores.
    """
    ours = found["simulated_10240_us_a_rank"]["rows"]
    rays = {"time": found["plain_cost_us"]["slope"], "driver_cpu": found["plain_driver_cpu_us"]["slope"]}
    return {name: round(us / (us + ours), 4) for name, us in rays.items()}


def plain_actors(count: int) -> list[Any]:
    """Actors of the kind that ranks are."""
    actor = ray.remote(PlainActor).options(num_cpus=1, max_restarts=0)
    actors = [actor.remote() for _ in range(count)]
    ray.get([a.noop.remote() for a in actors])
    return actors
