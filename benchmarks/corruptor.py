"""What ranks run for `benchmarks.refit_gate`: weight syncs that are corrupted in the actor's own processes."""

from __future__ import annotations

from contextlib import ExitStack
from time import perf_counter
from typing import Any

import numpy as np

from hybridflow.batch import Ragged
from hybridflow.dispatch import using
from hybridflow.engines.sampling import Sampling
from hybridflow.roles import Role, roles
from hybridflow.workers import Context, Worker
from tests.engines.vllm.corruptions import corrupted, noted


@roles.register("corruptor")
class Corruptor(Role, Worker):
    """Lives in the actor's processes and drives its engines."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._stack = ExitStack()

    @using("one_to_all")
    def attempt(self, how: str, rank: int) -> dict[str, Any]:
        """Change all weights a little as a step does, corrupt their sync on one rank, and ask for tokens.

        Returns:
            What was said of the sync, whether tokens were sampled, and the seconds of both tries.
        """
        actor: Any = self.context.peers["actor"]
        actor.generator.version = None  # as after a sleep in which weights are lost: they come once more, and are noted
        old = noted(actor.generator, actor.refit, actor.version)
        self._change(actor)
        found: dict[str, Any] = {"said": "", "sampled": True}
        start = perf_counter()
        with ExitStack() as stack:
            if self.context.rank == rank:
                stack.enter_context(corrupted(actor.generator, how, old))
            try:
                actor.sync_weights()
            except RuntimeError as error:
                found["said"] = str(error)
        found["seconds"] = perf_counter() - start
        try:
            actor.generator.generate(Ragged.of([[1]], np.int64), Sampling(max_tokens=1), [0])
        except RuntimeError:
            found["sampled"] = False
        actor.sync_weights()  # what comes right is taken again
        return found

    @using("one_to_all")
    def corrupt(self, how: str, rank: int) -> None:
        """Corrupt all syncs of one rank from now on."""
        actor: Any = self.context.peers["actor"]
        actor.generator.version = None
        if self.context.rank == rank:
            self._stack.enter_context(corrupted(actor.generator, how, {}, times=2**31))

    def _change(self, actor: Any) -> None:
        """All ranks change what they share alike. Stages may share a weight too, so it is looked up by its memory."""
        sharding, at = actor.engine.sharding, actor.groups.layout.coordinates[actor.groups.rank]
        views = {view.data_ptr(): view for view in map(actor.engine.shard, sharding.weights(at))}
        for view in views.values():
            view.mul_(1.001)
        actor.version += 1
