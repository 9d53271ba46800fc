"""The Ray actor: one process of a pool, and the roles that it plays.

Torch, and what needs it, is imported only when a role is built that is not light.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import ray

from hybridflow.batch import Batch
from hybridflow.config.schema import Config
from hybridflow.controller.failure import Failure, describe
from hybridflow.controller.store import unpack
from hybridflow.dispatch import Call, Method, methods
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout
from hybridflow.registry import import_plugins
from hybridflow.roles import roles


@dataclass(frozen=True)
class Report:
    """The small part of a call's result: it goes to the controller, the rows stay."""

    rows: int | None = None
    columns: tuple[str, ...] = ()
    value: Any = None
    metrics: Metrics = field(default_factory=Metrics)
    seconds: float = 0.0
    failure: Failure | None = None


class Rank:
    """One process of a pool."""

    def __init__(self, plugins: list[str]) -> None:
        import_plugins(plugins)
        self._workers: dict[str, Any] = {}
        self._node = ray.util.get_node_ip_address()

    def place(self) -> tuple[str, str]:
        """(node id, node address)."""
        return ray.get_runtime_context().get_node_id(), self._node

    def free_port(self) -> int:
        """A port of this node that nobody listens on."""
        with socket.socket() as probe:
            probe.bind((self._node, 0))
            return int(probe.getsockname()[1])

    def join(self, rank: int, world: int, local_rank: int, init_method: str, timeout_s: float) -> None:
        """Enter the pool's torch.distributed world."""
        os.environ.update(
            RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(local_rank), LOCAL_WORLD_SIZE=str(world)
        )
        from datetime import timedelta

        import torch.distributed as dist

        from hybridflow.parallel.platform import platform

        platform().start(local_rank)
        dist.init_process_group(
            platform().backend,
            init_method=init_method,
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=timeout_s),
        )

    def build(self, role: str, worker: str, layout: Layout, rank: int, config: Config, updates: int) -> Report:
        """Make the worker that plays a role."""
        from hybridflow.workers import Context

        try:
            self._workers[role] = _worker(worker)(Context(config, layout, rank, updates, peers=self._workers))
            return Report()
        except Exception as error:
            return Report(failure=self._failure(role, rank, "build", error))

    def call(self, role: str, method: str, rank: int, call: Call, *objects: Batch | Failure) -> tuple[Report, Any]:
        """Carry out one call; the rows of its result, and the report on it."""
        upstream = next((o for o in objects if isinstance(o, Failure)), None)
        if upstream is not None:
            failure = Failure(role, rank, self._node, method, str(upstream), upstream.traceback, follows=True)
            return Report(failure=failure), failure
        worker = self._workers[role]
        context = getattr(worker, "context", None)
        metrics = Metrics()
        if context is not None:
            context.metrics = metrics
        start = perf_counter()
        try:
            given = unpack(call, objects)  # type: ignore[arg-type]
            value = getattr(worker, method)(*given.args, **given.kwargs)
            declared = methods(type(worker))[method]
            _check(declared, value, given)
        except Exception as error:
            failure = self._failure(role, rank, method, error)
            return Report(failure=failure), failure
        seconds = perf_counter() - start
        if isinstance(value, Batch):
            return Report(len(value), value.columns, None, metrics, seconds), value
        return Report(0 if declared.returns_rows else None, (), value, metrics, seconds), None

    def _failure(self, role: str, rank: int, method: str, error: Exception) -> Failure:
        line, trace = describe(error)
        return Failure(role, rank, self._node, method, line, trace)


def _worker(name: str) -> Any:
    """The class that plays a role: the role's own if it is a worker too, else the worker of that name.

    In this order, since to look a name up among the workers may import our own, and with them torch.
    """
    from hybridflow.workers import Worker, workers

    own = roles.get(name) if name in roles else None
    return own if own is not None and issubclass(own, Worker) else workers.get(name)


def _check(declared: Method, value: Any, given: Call) -> None:
    """A worker keeps its role's promise about rows and columns, on the ranks that give any."""
    if isinstance(value, Batch) != declared.returns_rows and declared.gives is None:
        said = "rows (its return is annotated as Batch)" if declared.returns_rows else "no rows (no `gives`, no Batch)"
        raise TypeError(f"the method declares that it gives {said}, it returned {type(value).__name__}")
    if declared.gives is None or (isinstance(value, Batch) and not value.columns):
        return
    wanted = given.rows()
    if not isinstance(value, Batch) or set(value.columns) != set(declared.gives):
        found = value.columns if isinstance(value, Batch) else type(value).__name__
        raise TypeError(f"the method declares the columns {declared.gives}, it returned {found}")
    if wanted is not None and len(value) != len(wanted):
        raise ValueError(f"the method was given {len(wanted)} rows and returned {len(value)}")
