"""Flow of an algorithm as its class declares it: what a run would find out only when it is under way."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from typing import TYPE_CHECKING

from hybridflow.config import number_bounds, recipes, schedule_settings
from hybridflow.config.schema import Config, RolloutRecovery
from hybridflow.placement import started_roles
from hybridflow.preflight import part_checks
from hybridflow.scheduling import SCHEDULES, Stopped

if TYPE_CHECKING:
    from hybridflow.algorithms import Algorithm

KEY = "algorithm.name"


def problems(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    """Yield what is wrong with a flow, as `key: what was found; what to do`."""
    yield from _unwritten(config, algorithm)
    yield from _protocols(config, algorithm)
    yield from _learner(config, algorithm)
    yield from _schedule(config, algorithm)
    yield from _pacing(config)
    if not number_bounds.problems(config):  # which are told by themselves, and not what follows from them
        yield from _plans(config, algorithm)
        yield from _policy(config)
    yield from _parts(config, algorithm)
    yield from _lending(config)


def _parts(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    """Report what a schedule that learns from each minibatch by itself cannot take apart."""
    from hybridflow.algorithms.schedule import schedules

    name = config.trainer.schedule
    if name in schedules and schedules.get(name).in_parts:
        yield from part_checks.problems(config, algorithm)


def _schedule(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    """Report what a schedule that overlaps generation with learning cannot take apart."""
    from hybridflow.algorithms import Algorithm as Base
    from hybridflow.algorithms.schedule import schedules

    name = config.trainer.schedule
    if name not in schedules or not schedules.get(name).overlaps:
        return
    if config.rollout.recovery is RolloutRecovery.durable:
        yield (
            f"rollout.recovery: durable keeps rows of the very weights that would sample them again; with "
            f"trainer.schedule={name} a step that is made again has newer ones. Take sync, or exact"
        )
    key = f"trainer.schedule: {name}"
    called = recipes.called(config)
    if not algorithm.samples_from_actor():
        yield f"{key} generates for one step while it learns from another, but {called} samples nothing; take sync"
    elif algorithm.step is not Base.step:
        yield f"{key} calls `rollout` and `learn`, but {called} is one method, `step`; write the two, or take sync"
    elif "rollout" not in started_roles(config, algorithm.roles_of(config.algorithm)):
        yield f"{key} generates while the actor learns, so generation needs a pool of its own: placement=rollout_pool"


def _pacing(config: Config) -> Iterator[str]:
    """Report settings of a schedule that it does not have, or that do not go together."""
    from hybridflow.algorithms.schedule import schedules
    from hybridflow.engines.base import generation_engines
    from hybridflow.scheduling import samplers

    trainer = config.trainer
    name = trainer.schedule
    if name not in schedules:
        return
    paced = schedules.get(name).paced
    partial = SCHEDULES.get(name, {}).get("partial", False) if trainer.partial is None else trainer.partial
    if config.rollout.keep_kv_cache and not (paced and partial):
        finish_first = paced and trainer.partial is False
        which = ", trainer.partial=false; set that to true" if finish_first else "; take async"
        yield (
            "rollout.keep_kv_cache: true given, and no rows go on with new weights with "
            f"trainer.schedule={name}{which}, or leave it out"
        )
    if not paced:
        for key, value in schedule_settings.changes(trainer).items():
            yield f"trainer.{key}: {value} given, which trainer.schedule={name} does not heed; leave it out"
        return
    if trainer.stopped is not Stopped.next_step and not trainer.spare_prompts:
        yield f"trainer.stopped: {trainer.stopped} given, and no trainer.spare_prompts that a step ends without"
    if trainer.sampler and trainer.sampler not in samplers:
        yield f"trainer.sampler: {samplers.unknown(trainer.sampler)}"
    engine = config.rollout.engine
    if partial and engine in generation_engines and not generation_engines.get(engine).renews:
        yield (
            f"trainer.partial: rows under way go on with new weights, which those of rollout.engine = {engine} cannot; "
            "set it to false"
        )


def _policy(config: Config) -> Iterator[str]:
    """Report settings of a paced schedule of ours that do not go together."""
    from hybridflow.algorithms.schedule import schedules

    name = config.trainer.schedule
    if name not in SCHEDULES or not schedules.get(name).paced:
        return
    try:
        schedule_settings.policy_of_settings(name, config.algorithm, config.trainer)
    except ValueError as error:
        yield f"trainer.schedule: {name} with these settings: {error}"


def _lending(config: Config) -> Iterator[str]:
    """Report what lent slots cannot do."""
    from hybridflow.algorithms.schedule import schedules

    if not config.placement.lend_idle_slots:
        return
    key = "placement.lend_idle_slots: true given, but"
    name = config.trainer.schedule
    if name in schedules and schedules.get(name).overlaps and not schedules.get(name).lends:
        lending = ", ".join(sorted(other for other in schedules if schedules.get(other).lends))
        yield (
            f"{key} trainer.schedule={name} begins rows that lent slots would have to finish while the actor learns on "
            f"them; take {lending}, or leave it out"
        )
    if name in schedules and schedules.get(name).paced and config.trainer.partial is False:
        yield (
            f"{key} trainer.partial=false lets rows under way finish before there are new weights, and those on lent "
            "slots rest while the actor learns; set it to true, or leave lending out"
        )
    if config.environment.name and name in schedules and schedules.get(name).overlaps:
        yield (
            f"{key} conversations (environment.name = {config.environment.name}) on lent slots would leave their "
            f"environments waiting while the actor learns, with trainer.schedule={name}; take sync, or leave it out"
        )
    if config.rollout.keep_kv_cache:
        yield f"{key} rows on lent slots keep no keys and values (rollout.keep_kv_cache=true); leave one of them out"
    if config.rollout.recovery is RolloutRecovery.durable:
        yield (
            f"{key} rollout.recovery=durable knows rows again by the layout that sampled them, and of these there are "
            "two then; take rollout.recovery=exact, or leave it out"
        )


def _unwritten(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    from hybridflow.algorithms import Algorithm as Base

    if algorithm.learn is Base.learn and algorithm.step is Base.step:
        yield f"{KEY}: {recipes.called(config)} has neither `learn` nor `step`; write one of them"


def _protocols(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    """Report methods of its roles whose protocols nobody registers."""
    from hybridflow.dispatch import unknown_protocols
    from hybridflow.roles import roles

    for role in (role for role in algorithm.roles_of(config.algorithm) if role in roles):
        for problem in unknown_protocols(roles.get(role)):
            yield f"{KEY}: {recipes.called(config)} calls the role {role}: {problem}"


def _learner(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    """Report a learner without a model that learns: its model is what a run leaves, after its last step."""
    from hybridflow.roles import TrainedRole, roles

    learner = algorithm.learner
    called = algorithm.roles_of(config.algorithm)
    learn = [role for role in called if role in roles and issubclass(roles.get(role), TrainedRole)]
    if learner not in called:
        yield (
            f"{KEY}: {recipes.called(config)} leaves the model of its learner {learner!r}, which is not among its "
            f"roles ({', '.join(called) or 'none'}); name it there, or another as its `learner`"
        )
    elif learner in roles and learner not in learn:
        yield (
            f"{KEY}: {recipes.called(config)} leaves the model of its learner {learner!r}, which has none that learns; "
            f"name another as its `learner` ({', '.join(learn) or 'none of its roles learns'})"
        )


def _plans(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    """Report plans of updates that are no numbers: learning rates decay over them."""
    for role in algorithm.roles_of(config.algorithm):
        try:
            count: object = algorithm.planned_updates(config.algorithm, role, config.trainer.steps)
        except Exception as error:
            yield (
                f"{KEY}: {recipes.called(config)}.planned_updates raised {type(error).__name__}: {error}; it is a "
                "classmethod that is given the settings, a role and the number of steps"
            )
            return
        if not isinstance(count, Real) or count < 0:
            yield (
                f"{KEY}: {recipes.called(config)}.planned_updates gave {count!r} for {role}; the number of its "
                "optimizer steps was expected"
            )
            return
