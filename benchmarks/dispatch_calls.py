"""The time of calls; see `benchmarks.dispatch`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import ray

from benchmarks import dispatch_roles
from benchmarks.dispatch_roles import Bench, PlainActor
from benchmarks.pairs import Work, paired, seconds
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.batch.rows import even_sizes
from hybridflow.controller import ResourcePool, Supervisor, cluster, put, supervise
from hybridflow.controller.group import group_class
from hybridflow.controller.report import Order, Report
from hybridflow.dispatch import Call
from hybridflow.parallel.layout import Layout

PLUGINS = [dispatch_roles.__name__]
ROWS = 1024
SIMULATED = Layout(tensor=8, pipeline=8, data=160)


def noop() -> dict[str, Any]:
    """Nothing, on 8 ranks."""
    with cluster(slots=16):
        supervisor = Supervisor()
        group = ResourcePool("ours", 8, supervisor, plugins=PLUGINS).play("bench", Layout(data=8))
        actors = plain_actors(8)
        blob = bytes(len(Order("bench", "noop", Call()).encode()))

        def ours() -> None:
            group.noop().get()

        found = paired("noop_ratio", ours, lambda: ray.get([a.noop.remote(blob) for a in actors]), 1000)
        found |= paired("noop_ratio_no_argument", ours, lambda: ray.get([a.noop.remote() for a in actors]), 1000)
        supervisor.drain()
        return found


def chain() -> dict[str, Any]:
    """Rows there and back."""
    with cluster(slots=10):
        supervisor = Supervisor()
        two = ResourcePool("two", 2, supervisor, plugins=PLUGINS).play("bench", Layout(data=2))
        three = ResourcePool("three", 3, supervisor, plugins=PLUGINS).play("bench", Layout(data=3))
        couple, trio = plain_actors(2), plain_actors(3)
        found: dict[str, Any] = {}
        for name, size, times in (("chain_ratio", 64 * 2**20, 40), ("chain_ratio_64KiB", 64 * 2**10, 400)):
            made = two.add(put(Batch(x=ragged_rows(size))))
            made.metadata()
            sent = [ray.put((part.ragged("y").values, part.ragged("y").offsets)) for part in made.get().split(2)]

            def ours(made: BatchRef = made) -> BatchRef:
                back = two.sums(three.add_again(made))
                back.metadata()
                return back

            def theirs(sent: list[Any] = sent) -> list[Any]:
                there = [a.add.remote(*ranges(sent, r)) for a, r in zip(trio, spans(2, 3), strict=True)]
                back = [a.sums.remote(*ranges(there, r)) for a, r in zip(couple, spans(3, 2), strict=True)]
                ray.wait(back, num_returns=2, fetch_local=False)
                return back

            assert np.array_equal(ours().get().dense("sum"), np.concatenate(ray.get(theirs())))
            found |= paired(name, ours, theirs, times)
            supervisor.drain()
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
    """The arguments of a `PlainActor`'s method."""
    return [[(start, stop) for _, start, stop in runs], *(chunks[producer] for producer, _, _ in runs)]


def cost() -> dict[str, Any]:
    """By the number of ranks. The plain fan-out goes to the same processes, so that 128 of them fit."""
    found: dict[str, Any] = {}
    for ranks in (2, 8, 32, 128):
        with cluster(slots=ranks):
            supervisor = Supervisor()
            pool = ResourcePool("ours", ranks, supervisor, plugins=PLUGINS)
            group = pool.play("bench", Layout(data=ranks))

            def ours(group: Any = group) -> None:
                group.noop().get()

            def plain(pool: ResourcePool = pool) -> None:
                ray.get([rank.place.remote() for rank in pool.ranks])

            found |= paired(f"ratio_{ranks}", ours, plain, 3000 // ranks)
            supervisor.drain()
    ours_us = {ranks: found[f"ratio_{ranks}_us"]["ours"] for ranks in (2, 8, 32, 128)}
    plain_us = {ranks: found[f"ratio_{ranks}_us"]["theirs"] for ranks in ours_us}
    return {
        "call_cost_us": ours_us,
        "call_cost_us_a_rank": slope(ours_us),
        "plain_cost_us": plain_us,
        "plain_cost_us_a_rank": slope(plain_us),
    }


def slope(cost_us: dict[int, float]) -> float:
    """Least squares, in µs a rank."""
    return round(float(np.polyfit(list(cost_us), list(cost_us.values()), 1)[0]), 2)


class Stub:
    """A rank whose reports are there at once; it counts what it is sent."""

    def __init__(self) -> None:
        self.call = SimpleNamespace(remote=lambda order, *objects: object())
        self.call_rows = SimpleNamespace(remote=lambda order, *objects: (object(), object()))


def simulated() -> dict[str, Any]:
    """The driver's own part of a call at 10,240 ranks."""
    report = Report().encode()
    transport = SimpleNamespace(get=lambda wanted, timeout: [report] * len(wanted), exceptions=ray.exceptions)
    supervisor, ranks = Supervisor(), [Stub() for _ in range(SIMULATED.size)]
    group: Any = group_class(Bench)("bench", Bench, SIMULATED, ranks, supervisor)
    rows = BatchRef.here(Batch(x=Ragged.of([np.zeros(8, np.float32)] * SIMULATED.size)))
    for source in rows.sources:
        source.chunks[0].__dict__["data"] = object()  # what it is in the store

    def with_rows() -> None:
        group.add(rows)
        supervisor.drain()

    with patch.object(supervise, "ray", transport):
        group.noop().get()  # the layout's coordinates are known from now on
        taken = {"noop": median_us(lambda: group.noop().get()), "rows": median_us(with_rows)}
    return {
        "simulated_10240_us": taken,
        "simulated_10240_us_a_rank": {name: round(us / SIMULATED.size, 3) for name, us in taken.items()},
    }


def median_us(work: Work, times: int = 20) -> float:
    """Of some times, in µs."""
    return round(1e6 * median(seconds(work) for _ in range(times)), 1)


def plain_actors(count: int) -> list[Any]:
    """Actors of the kind that ranks are."""
    actor = ray.remote(PlainActor).options(num_cpus=1, max_restarts=0)
    actors = [actor.remote() for _ in range(count)]
    ray.get([a.noop.remote() for a in actors])
    return actors
