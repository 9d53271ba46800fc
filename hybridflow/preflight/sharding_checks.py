"""Can the engines lay a model out so, and can weights get from one to the other? What they refuse, by key. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hybridflow.config.schema import Config, ParallelConfig, Resharding, TrainedRoleConfig
from hybridflow.engines.base import generation_engines, make_shardings, training_engines
from hybridflow.engines.sharding import Sharding, ShardingError
from hybridflow.models import ModelShape
from hybridflow.parallel.layout import Layout
from hybridflow.resharding.plan import refuse_unnested

OF_A_SHARDING = ("shape", "tensor", "pipeline", "weights", "region", "holders")


def training(role: str, settings: TrainedRoleConfig, model: ModelShape) -> Iterator[str]:
    """Yield what a role's training engine refuses; nothing of an engine that is not known."""
    if settings.engine in training_engines:
        engine = training_engines.get(settings.engine)
        layout = _layout(settings.parallel)
        yield from _refused(role, settings.engine, settings.model.path, lambda: engine.sharding(model, layout))


def parallelism(role: str, settings: TrainedRoleConfig) -> Iterator[str]:
    """Yield the kinds of parallelism that have a setting, but that the role's engine has not."""
    parallel = settings.parallel
    if settings.engine not in training_engines:
        return
    for name, value in (("context", parallel.context), ("expert", parallel.expert)):
        if value != 1 and name not in training_engines.get(settings.engine).parallelism:
            yield (
                f"{role}.parallel.{name}: {value} given, but the engine {settings.engine} has no {name} parallelism; "
                "set it to 1"
            )


def generation(config: Config, model: ModelShape, *, disaggregated: bool) -> Iterator[str]:
    """Yield what the generation engine refuses, and what does not get there from the actor's ranks.

    Args:
        disaggregated: generation has a pool of its own; else its sizes are known to divide the actor's, or another
            check says that they do not.
    """
    if config.rollout.engine not in generation_engines:
        return
    engine = generation_engines.get(config.rollout.engine)
    path = config.actor.model.path
    if disaggregated:
        own = _layout(config.rollout.parallel)
        yield from _refused("rollout", config.rollout.engine, path, lambda: engine.sharding(model, own))
    elif (shared := _shared(config)) is not None and not list(training("actor", config.actor, model)):
        refused = list(_refused("rollout", config.rollout.engine, path, lambda: engine.sharding(model, shared)))
        yield from refused or _unnested(config, model, shared)


def _unnested(config: Config, model: ModelShape, layout: Layout) -> Iterator[str]:
    """Yield what divides but still ends at other rows, as engines pad the vocabulary differently."""
    if config.rollout.resharding is not Resharding.hybrid or config.actor.engine not in training_engines:
        return
    try:
        refuse_unnested(make_shardings(config.actor.engine, config.rollout.engine, model, layout, layout), layout)
    except ValueError as error:
        yield (
            f"rollout.parallel.tensor: {layout.generation_sizes[0]} given, and actor.parallel.tensor = "
            f"{layout.tensor}: {error}; set it to 1, or actor.parallel.tensor to a size that divides 64"
        )


def _layout(parallel: ParallelConfig) -> Layout:
    """Return the layout of one replica."""
    return Layout(parallel.tensor, parallel.pipeline)


def _shared(config: Config) -> Layout | None:
    """Return the layout of one replica of ranks that train and generate; None: there is none of these sizes."""
    actor = config.actor.parallel
    rollout = config.rollout.parallel
    try:
        return Layout(actor.tensor, actor.pipeline, generation=(rollout.tensor, rollout.pipeline))
    except ValueError:
        return None


def _refused(role: str, engine: str, path: str, make: Callable[[], Sharding]) -> Iterator[str]:
    """Yield what a sharding refuses when it is made, each by the key of its size; and what is no sharding."""
    try:
        made = make()
    except ShardingError as error:
        for size, value, reason in error.problems:
            yield f"{role}.parallel.{size}: {value} {reason} of {path}"
        return
    if lacking := [name for name in OF_A_SHARDING if not hasattr(made, name)]:
        yield (
            f"{role}.engine: the sharding that {engine!r} gives is a {type(made).__name__} without "
            f"{', '.join(lacking)}; what one has says hybridflow.engines.sharding.Sharding"
        )
