"""Roles on ranks that several algorithms take their steps with, one after the other: one start serves all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from hybridflow import interrupt
from hybridflow.algorithms import Algorithm, StepContext, algorithms
from hybridflow.algorithms.schedule import schedules
from hybridflow.batch import BatchRef
from hybridflow.config.schema import Config
from hybridflow.conformance.shared_rank import SharedRank
from hybridflow.registry import import_plugins
from hybridflow.tasks import Prompts
from hybridflow.trainer.build import Running, build
from hybridflow.trainer.step_metrics import derived
from hybridflow.trainer.step_rows import drawn
from hybridflow.trainer.task_rows import load_task
from hybridflow.workers.worker import scores_its_own_way

PLUGIN = "hybridflow.conformance.shared_rank"
EVERYONE = "conformance_everyone"


@dataclass(frozen=True)
class SharedRoles:
    """Roles that any of some algorithms may call."""

    running: Running

    def algorithm(self, config: Config) -> Algorithm:
        """Build the algorithm of these settings over the roles, which take up their part of them."""
        ranks = [rank for pool in self.running.pools.values() for rank in pool.ranks]
        taking_up = [rank.take_up.remote(config.algorithm) for rank in ranks]
        self.running.supervisor.values(self.running.supervisor.ask("conformance", "take_up", taking_up))
        algorithm = algorithms.get(config.algorithm.name)(config.algorithm, self.running.groups)
        algorithm.scores_first = scores_its_own_way(config.actor.worker)
        task = load_task(config)
        draws = iter(range(1000))
        split = "warmup" if algorithm.supervised else "train"
        prompts = Prompts(task, split, config.algorithm.prompts_per_step, config.run.seed)

        def draw() -> BatchRef:
            return drawn(algorithm, prompts, next(draws))

        algorithm.begin_step(StepContext(0, draw))
        return algorithm

    def step(self, algorithm: Algorithm, number: int) -> tuple[BatchRef, dict[str, float]]:
        """Take one step as the trainer does; return its rows, and what it measured."""
        context = StepContext(number, algorithm.context.next_prompts)
        schedule = schedules.get("sync")(algorithm, self.running.supervisor)
        rollout = schedule.take_step(context)
        metrics = schedule.finish_step()
        metrics |= algorithm.on_step_end(metrics)
        return rollout, metrics | derived(metrics, context, rollout, algorithm.config.epochs)


@contextmanager
def start_shared_roles(
    configs: Sequence[Config], say: Callable[[str], None], extra: Sequence[str] = ()
) -> Iterator[SharedRoles]:
    """Start what the algorithms of these settings call, each role once, by the first settings.

    Args:
        extra: more roles to be started.

    Raises as `trainer.build`.
    """
    first = configs[0]
    config = replace(first, algorithm=replace(first.algorithm, name=EVERYONE), plugins=[*first.plugins, PLUGIN])
    import_plugins(config.plugins)
    called = [r for c in configs for r in algorithms.get(c.algorithm.name).roles_of(c.algorithm)]
    everyone = type("Everyone", (Algorithm,), {"roles": tuple(dict.fromkeys([*called, *extra]))})
    algorithms.register(EVERYONE)(everyone)
    with interrupt.ShieldedStack() as stack:
        yield SharedRoles(build(config, stack, say, rank_class=SharedRank))
