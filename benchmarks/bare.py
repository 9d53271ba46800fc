"""A role that runs the engines of the other roles bare: no controller, no packing, no bookkeeping. For benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np

from hybridflow.batch import Batch
from hybridflow.dispatch import using
from hybridflow.roles import Role, roles
from hybridflow.workers import Context, Worker


@roles.register("bare")
class Bare(Role, Worker):
    """Lives in the actor's, critic's and reference's processes and drives their engines."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._seconds: dict[str, float] = {}

    @using("one_to_all")
    def step(self, rollout: Batch, order: list[list[int]]) -> dict[str, float]:
        """Carry out what one PPO step asks of the engines, on the rows of a step that was taken.

        Args:
            rollout: all rows, on every rank.
            order: the rows of each minibatch.

        Returns:
            Seconds of each part on this rank. What is not an engine's work (packing rows, building parameters) is done
            before the clock of its part starts.
        """
        self._seconds = {}
        actor, critic, reference = (self.context.peers[name] for name in ("actor", "critic", "reference"))
        self._transition(actor)
        self._generate(actor, rollout)
        for name, worker in (("actor", actor), ("reference", reference), ("critic", critic)):
            self._score(f"score_{name}", worker.engine, rollout)
        for rows in order:
            part = rollout.select(rows)
            self._train("train_critic", critic.engine, part, lambda out, micro: out.values.square().sum() * 1e-6)
            self._train("train_actor", actor.engine, part, lambda out, micro: out.log_probs.sum() * 1e-6)
        actor.version += 1
        return self._seconds

    def _transition(self, actor: Any) -> None:
        with self._timed("transition"):
            actor.refit(actor.generator, actor.version)

    def _generate(self, actor: Any, rollout: Batch) -> None:
        rank, replicas = self.context.rank, self.context.layout.size
        mine = rollout.select(np.array_split(np.arange(len(rollout)), replicas)[rank])
        settings = self.context.config.rollout
        from hybridflow.engines.sampling import Sampling
        from hybridflow.engines.vllm.requests import parameters

        sampling = Sampling.of(settings, {})
        generator = actor.generator
        prompts = [{"prompt_token_ids": p.tolist()} for p in mine.ragged("prompt_ids")]
        sampled = [parameters(sampling, seed, generator._stop_ids) for seed in range(len(mine))]
        with self._timed("generate"):
            generator._llm.generate(prompts, sampled, use_tqdm=False)

    def _score(self, name: str, engine: Any, rollout: Batch) -> None:
        import torch

        micros = engine.pack(rollout)
        with self._timed(name), torch.no_grad():
            engine.run(micros, lambda out, _: out.log_probs.sum() * 0, train=False)

    def _train(self, name: str, engine: Any, rows: Batch, loss: Any) -> None:
        micros = engine.pack(rows)
        with self._timed(name):
            engine.optimizer.clear()
            engine.run(micros, loss, train=True)
            engine.optimizer.step()

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        import torch.distributed as dist

        from hybridflow.parallel.platform import platform

        dist.barrier()
        platform().synchronize()
        start = perf_counter()
        try:
            yield
        finally:
            platform().synchronize()
            self._seconds[name] = self._seconds.get(name, 0.0) + perf_counter() - start
