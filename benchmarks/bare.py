"""A role that runs the engines of the other roles bare: no controller, no packing, no bookkeeping. For benchmarks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hybridflow.batch import Batch
from hybridflow.batch.balance import partition
from hybridflow.dispatch import using
from hybridflow.parallel.layout import Layout
from hybridflow.roles import Role, roles
from hybridflow.workers import Context, Worker


@roles.register("bare")
class Bare(Role, Worker):
    """Lives in the processes of the actor and its peers, and drives their engines."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._seconds: dict[str, float] = {}
        self._cpu: dict[str, float] = {}

    @using("one_to_all")
    def step(
        self, rollout: Batch, order: list[list[int]], scores: dict[str, list[int]]
    ) -> tuple[dict[str, float], ...]:
        """Carry out what one step asks of the engines, on the rows of a step that was taken.

        Args:
            rollout: all rows, on every rank.
            order: the rows of each minibatch.
            scores: by role, the rows that it scores before the updates.

        Returns:
            Seconds of each part on this rank, and its CPU seconds. What is not an engine's work (packing rows, building
            parameters) is done before the clock of its part starts.
        """
        self._seconds = {}
        self._cpu = {}
        peers = self.context.peers
        actor = peers["actor"]
        self._transition(actor)
        self._generate(actor, rollout)
        for name, rows in scores.items():
            self._score(f"score_{name}", peers[name].engine, self._share(peers[name], rollout.select(rows)))
        for rows in order:
            part = rollout.select(rows)
            if "critic" in peers:
                critic = peers["critic"]
                own = self._share(critic, part)
                self._train("train_critic", critic.engine, own, lambda out, micro: out.values.square().sum() * 1e-6)
            own = self._share(actor, part)
            self._train("train_actor", actor.engine, own, lambda out, micro: out.log_probs.sum() * 1e-6)
        actor.version += 1
        return self._seconds, self._cpu

    def _share(self, worker: Any, rows: Batch) -> Batch:
        """Return the rows of this rank's data parallel part, with as many tokens as the others."""
        layout: Layout = worker.groups.layout
        lengths = rows.lengths("prompt_ids") + rows.lengths("response_ids")
        return rows.select(whole_groups(rows, lengths, layout.data)[worker.groups.at.dp])

    def _transition(self, actor: Any) -> None:
        with self._timed("transition"):
            actor.refit(actor.generator, actor.version)

    def _generate(self, actor: Any, rollout: Batch) -> None:
        """Sample as many tokens for each prompt as the step has: the end of a response is known beforehand."""
        from hybridflow.engines.sampling import Sampling
        from hybridflow.engines.vllm.requests import parameters

        replicas = self.context.config.rollout.parallel
        size = self.context.layout.size // (replicas.tensor * replicas.pipeline)
        parts = whole_groups(rollout, rollout.lengths("response_ids"), size)
        mine = rollout.select(parts[self.context.rank])  # a replica is one rank in these experiments
        generator = actor.generator
        sampling = Sampling.of(self.context.config.rollout, {})
        sampled = parameters(sampling, range(len(mine)), ())
        for one, length in zip(sampled, mine.lengths("response_ids").tolist(), strict=True):
            one.max_tokens = length
        prompts = [{"prompt_token_ids": p.tolist()} for p in mine.ragged("prompt_ids")]
        generator._begin()
        generator._steps.together = True
        with self._timed("generate"):
            generator._llm.generate(prompts, sampled, use_tqdm=False)

    def _score(self, name: str, engine: Any, rows: Batch) -> None:
        import torch

        micros = engine.pack(rows)
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
        start, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            platform().synchronize()
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start
            self._cpu[name] = self._cpu.get(name, 0.0) + time.process_time() - cpu


def whole_groups(rows: Batch, weights: np.ndarray, parts: int) -> list[np.ndarray]:
    """Divide rows so that none of `parts` is much heavier than another, and none has a part of a group."""
    groups = rows.dense("group_id") if "group_id" in rows else np.arange(len(rows))
    _, group = np.unique(groups, return_inverse=True)
    divided = partition(np.bincount(group, weights), parts)
    return [np.flatnonzero(np.isin(group, mine)) for mine in divided]
