"""The base of workers, and what they are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from time import perf_counter
from typing import Any

from hybridflow.config import sections
from hybridflow.config.schema import Config
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout
from hybridflow.placement import Engines
from hybridflow.registry import Registry, is_users
from hybridflow.roles import roles


@dataclass
class Context:
    """Context of a worker: its place in the run.

    Attributes:
        layout, rank: of its role; ranks of a pool are the same in all its roles.
        role: its name.
        metrics: of the call that is being carried out; they travel with its result.
        total_updates: optimizer steps of this role that the run plans.
        engines: those that the placement gives its model; a role that it knows no model of has none.
        drawn: how often the call that is being carried out has drawn from each random stream, by `stream_id`.
        peers: the workers of the other roles in this process, by role, as they are built: their engines make room
            while one of them starts.
        settings: the section of its role, which cannot be changed; None if the settings have none of that name.
    """

    config: Config
    layout: Layout
    rank: int
    role: str
    total_updates: int = 1
    engines: Engines = field(default_factory=Engines)
    metrics: Metrics = field(default_factory=Metrics)
    drawn: Counter[int] = field(default_factory=Counter)
    peers: Mapping[str, Worker] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Any:
        return sections.frozen(getattr(self.config, self.role, None))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Record the seconds of a part of a call as `timing_s/<name>`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.metrics.max(f"timing_s/{name}", perf_counter() - start)


class Worker:
    """Base of workers."""

    def __init__(self, context: Context) -> None:
        self.context = context


# The reward model's module comes first: it also has the workers `model` and `cost_model`, which are then found before
# the actor's is imported.
MODULES = ("reward_model", "actor", "rollout", "critic", "cost_critic", "reference", "reward", "cost", "profiler")
OUR_WORKERS = {
    "actor": ("actor", "training_actor", "lending_actor", "frozen_actor"),
    "rollout": ("rollout",),
    "critic": ("critic",),
    "cost_critic": ("cost_critic",),
    "reference": ("reference",),
    "reward": ("reward", "model"),
    "cost": ("cost", "cost_model"),
    "reward_model": ("reward_model",),
}
"""By role, the names of our workers for it: to know them, nothing has to be imported."""
GRADED_MODEL = "graded_model"
"""What `model` becomes where it is one of several graders; settings do not name it."""
PROFILER = "profiler"
"""Worker of `hybridflow profile`, of no role that an algorithm could call; settings do not name it either."""

workers: Registry[type[Worker]] = Registry(
    "worker",
    *(f"hybridflow.workers.{name}" for name in MODULES),
    of=Worker,
    own=frozenset((*chain.from_iterable(OUR_WORKERS.values()), GRADED_MODEL, PROFILER)),
)

SCORES_OR_LEARNS = ("compute_log_prob", "update_policy", "update_actor")


def registered_worker(name: str) -> type[Worker] | None:
    """Return the worker that is registered by now under a name, or the role of that name that is a worker too.

    Nothing is imported to find more, so it is one of a user's, or one of ours that somebody has imported.
    """
    role = roles.registered.get(name)
    return role if role is not None and issubclass(role, Worker) else workers.registered.get(name)


def scores_its_own_way(name: str) -> bool:
    """Tell whether an actor's worker scores rows, or learns from them, by code of a user's.

    An update of ours can then not stand for its pass for old log-probs.
    """
    worker = registered_worker(name)
    methods = (getattr(worker, method, None) for method in SCORES_OR_LEARNS) if worker is not None else ()
    return any(method is not None and is_users(method) for method in methods)
