"""What ranks run: the roles of an algorithm but for sampling, and the gradients of their steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist

from hybridflow.config.schema import Config
from hybridflow.dispatch import Call
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout
from hybridflow.placement import engines_of
from hybridflow.workers import Context, workers
from hybridflow.workers.actor import ActorWorker
from hybridflow.workers.model_worker import ModelWorker
from tests.engines.megatron.engine_reference import before_step, gradients
from tests.engines.rank_functions import Arrays, weights


class Learner(ActorWorker):
    """The actor without vLLM: its rows are given."""

    def start_generation(self) -> None:
        """Nothing is generated."""

    def release_generation(self) -> None:
        """There is none."""


_roles: dict[str, ModelWorker] = {}
_steps: dict[str, list[Arrays]] = {}


def build(config: Config, layout: Layout, roles: Sequence[str]) -> None:
    """New workers of these roles, in place of those before."""
    for role in roles:
        made: Any = Learner if role == "actor" else workers.get(role)
        _roles[role], _steps[role] = (
            made(Context(config, layout, dist.get_rank(), role, engines=engines_of(config, role))),
            [],
        )


def call(role: str, method: str, parts: Sequence[Call]) -> tuple[Any, Metrics]:
    """This rank's part of a call: what it gave, and what it measured. The gradient of an update is kept."""
    worker, mine = _roles[role], parts[dist.get_rank()]
    worker.context.metrics = Metrics()

    def keep() -> None:
        _steps[role].append(gradients(worker.engine))

    with before_step(worker.engine, keep) if method.startswith("update_") else nullcontext():
        given = getattr(worker, method)(*mine.args, **mine.kwargs)
    return given, worker.context.metrics


def steps(role: str) -> list[Arrays]:
    """The gradient of each update since the worker was built, by the weights of this rank's stage."""
    return _steps[role]


def weights_of(role: str) -> Arrays:
    """The weights of this rank's stage."""
    return weights(_roles[role].engine)


def refused(role: str, method: str, parts: Sequence[Call]) -> tuple[str, bool, int]:
    """What an update is refused with, whether all that an optimizer step changes is as it was, and the version."""
    worker: Any = _roles[role]
    mine = parts[dist.get_rank()]
    before = _state(worker)
    try:
        getattr(worker, method)(*mine.args, **mine.kwargs)
        said = ""
    except RuntimeError as error:
        said = str(error)
    after = _state(worker)
    return said, all(torch.equal(x, y) for x, y in zip(before, after, strict=True)), worker.version


def _state(worker: Any) -> list[torch.Tensor]:
    optimizer = worker.engine.optimizer
    whole = [*worker.engine.model.parameters(), *optimizer.state(), torch.tensor(optimizer.schedule.num_steps)]
    return [tensor.detach().clone() for tensor in whole]
