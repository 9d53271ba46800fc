"""Problems of settings alone: numbers, names, combinations, components. No model folder is read.

Imports neither vLLM nor Ray, and torch only to ask the components of algorithms, after all else; unless a plugin does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import MappingProxyType

from hybridflow.config import recipes, validation_sets
from hybridflow.config.model_roles import has_model, section, with_models
from hybridflow.config.provenance import Origins
from hybridflow.config.schema import SECTIONS, Config, CurriculumConfig, Device, TaskConfig
from hybridflow.dispatch import declarations
from hybridflow.engines.base import generation_engines, training_engines
from hybridflow.errors import ConfigError
from hybridflow.models import ModelShape
from hybridflow.placement import model_device, started_roles
from hybridflow.preflight import (
    combination_checks,
    component_checks,
    component_names,
    environment_checks,
    flow_checks,
    grader_checks,
    sink_checks,
    unused_settings,
)
from hybridflow.preflight.model_checks import Facts
from hybridflow.roles import ActorRole
from hybridflow.roles.rollout import LendingActorRole, TrainingActorRole

MEASURED = re.compile(r"(accuracy|mean_grade)(_se)?|failed_grades|(pass|maj)@\d+|loss|sign_accuracy")  # by a validation
OUR_ACTORS = {"training_actor": TrainingActorRole, "lending_actor": LendingActorRole, "frozen_actor": ActorRole}
"""The roles of our workers that settings may name instead of `actor`; to know them, none is imported."""


def problems(
    config: Config,
    models: Mapping[str, ModelShape] = MappingProxyType({}),
    tokenizers: Mapping[str, str] = MappingProxyType({}),
    gpus: int | None = None,
    cpus: int | None = None,
) -> list[str]:
    """List every problem of numbers, names and combinations, as `key: what is wrong and what to do`.

    Args:
        models: by role, the sizes of its model, as far as they are known.
        tokenizers: by role, how its tokenizer differs from the actor's, as `Facts` has it.
        gpus, cpus: of the cluster, if it is known.
    """
    from hybridflow.algorithms import algorithms
    from hybridflow.algorithms.schedule import schedules

    name = config.algorithm.name
    lines = [*_task(config), *_validation(config)]
    lines += component_checks.made_of("trainer.schedule", schedules, config.trainer.schedule, "algorithm", "steps")
    lines += [*sink_checks.problems(config), *environment_checks.problems(config), *_hardware(config, gpus)]
    if name not in algorithms:
        unknown = [*recipes.former_names(name)] or component_checks.unknown_name("algorithm.name", algorithms, name)
        return [*unknown, *lines, *combination_checks.problems(config)]
    flow = algorithms.get(name)
    roles = flow.roles_of(config.algorithm)
    lines += [*_graders(config, roles), *_workers(config, roles), *_linked_actor(config, roles)]
    lines += _engines(config, roles)
    lines += [*component_names.problems(config, flow), *flow_checks.problems(config, flow)]
    facts = Facts(roles, models, own_roles(config, roles), tokenizers, unused_settings.idle(config, flow), gpus, cpus)
    return [*lines, *combination_checks.problems(config, facts)]


def of_components(config: Config, origins: Origins | None = None) -> list[str]:
    """List the problems of the algorithm's components and of what it does not heed, in settings sound otherwise.

    Args:
        origins: where they were made, if that is known.
    """
    from hybridflow.algorithms import algorithms

    algorithm = algorithms.get(config.algorithm.name)
    return [
        *unused_settings.problems(config, algorithm, origins),
        *component_checks.problems(config, algorithm),
        *(grader_checks.of_estimator(config) if "advantage" in algorithm.components else ()),
    ]


def own_roles(config: Config, called: tuple[str, ...]) -> tuple[str, ...]:
    """Select the roles that are none of ours, and for which there is a worker; or whose section says which it is."""
    from hybridflow.roles import roles
    from hybridflow.workers.worker import registered_worker

    others = [role for role in called if role not in SECTIONS and role in roles]
    return tuple(role for role in others if has_model(config, role) or registered_worker(role) is not None)


def _task(config: Config) -> Iterator[str]:
    from hybridflow.algorithms import algorithms
    from hybridflow.tasks.mixture import source_problems
    from hybridflow.tasks.preference_task import PreferenceTask
    from hybridflow.tasks.task import tasks

    for key, settings in _task_sections(config):
        name = settings.name
        yield from component_checks.unknown_name(f"{key}.name", tasks, name)
        if name in tasks:
            yield from component_checks.wrong_options(key, name, tasks.get(name), settings.options)
        if name == "mixture" and "sources" in settings.options:
            yield from (f"{key}.options.{line}" for line in source_problems(settings.options["sources"]))
    name = config.task.name
    if not config.task.curriculum.by and config.task.curriculum != CurriculumConfig():
        yield "task.curriculum.by: nothing given, so the rest of task.curriculum does nothing; name a field of the rows"
    learner = config.algorithm.name
    pairs = learner in algorithms and algorithms.get(learner).preferences
    if pairs and name in tasks and not issubclass(tasks.get(name), PreferenceTask):
        yield (
            f"task.name: {recipes.called(config)} learns from preferences, and {name} has none: make it a "
            "hybridflow.tasks.PreferenceTask, or choose another, such as addition_pairs"
        )


def _task_sections(config: Config) -> Iterator[tuple[str, TaskConfig]]:
    """Yield each section of settings of a task, with its key."""
    yield "task", config.task
    for name, settings in validation_sets.validation_sets(config).items():
        yield f"trainer.validation_sets.{name}", settings


def _validation(config: Config) -> Iterator[str]:
    settings = config.trainer
    if settings.validation_samples > 1 and not settings.validation_temperature:
        yield (
            f"trainer.validation_samples: {settings.validation_samples} answers to a question are all the same with "
            "trainer.validation_temperature = 0; give it the temperature that the model is used with, such as 1"
        )
    yield from validation_sets.problems(config)
    place = settings.keep_best.split("/")
    metric = place[1] if place[0] in settings.validation_sets and place[1:] else place[0]
    if settings.keep_best and not MEASURED.fullmatch(metric):
        yield (
            f"trainer.keep_best: {settings.keep_best!r} given; a metric of validations was expected, such as accuracy, "
            "mean_grade, pass@4 or, of a reward model, loss: [SET/]METRIC[/SOURCE], see docs/metrics.md"
        )


def _hardware(config: Config, gpus: int | None) -> Iterator[str]:
    """Yield a hardware file that cannot be read, or is of other devices than models run on."""
    if not config.trainer.hardware:
        return
    from hybridflow.planning.hardware_files import read_hardware

    try:
        hardware = read_hardware(config.trainer.hardware)
    except ConfigError as error:
        yield f"trainer.hardware: {str(error).removeprefix('hardware: ')}"
        return
    device = model_device(config, gpus)
    if device not in (Device.auto, hardware.device):
        yield f"trainer.hardware: {hardware.name} is of a {hardware.device}, and models run on a {device} here"


def _graders(config: Config, roles: tuple[str, ...]) -> Iterator[str]:
    """Yield graders that nobody registers, and options that they do not take."""
    yield from grader_checks.problems("reward", config.reward)
    if "cost" in roles and not has_model(config, "cost"):
        yield from grader_checks.problems("cost", config.cost)


def _workers(config: Config, roles: tuple[str, ...]) -> Iterator[str]:
    """Yield workers that nobody registers, and ours for another role. None of ours is imported."""
    from hybridflow.workers.worker import OUR_WORKERS, registered_worker, workers

    role_of = {name: role for role, names in OUR_WORKERS.items() for name in names}
    for role in with_models(config, (role for role in roles if role not in OUR_WORKERS)):
        name = section(config, role).worker
        if name not in role_of and registered_worker(name) is None:
            yield f"{role}.worker: {name!r} given, but no worker is named so. There is {_list([*role_of])}"
    for role in (role for role in roles if role in OUR_WORKERS):
        name = section(config, role).worker
        can = [*OUR_WORKERS[role], *workers.registered]
        if name in can:
            continue
        near = get_close_matches(name, can, n=1)
        what = f"it works for the role {role_of[name]}" if name in role_of else "no worker is named so"
        hint = f"; did you mean {near[0]}? " if near else ". "
        yield f"{role}.worker: {name!r} given, but {what}{hint}There is {_list(can)}"


def _linked_actor(config: Config, roles: tuple[str, ...]) -> Iterator[str]:
    """Yield an actor's worker that cannot give weights to generation's own pool, or cannot lend it slots."""
    from hybridflow.workers.worker import registered_worker

    name = config.actor.worker
    if name == "actor" or "rollout" not in started_roles(config, roles):
        return  # of `actor` the placement makes the one that can
    lends = config.placement.lend_idle_slots
    worker: type | None = OUR_ACTORS.get(name, registered_worker(name))
    needed = LendingActorRole if lends else TrainingActorRole
    if worker is None or not (lacking := [one for one in declarations(needed) if one not in declarations(worker)]):
        return
    base = "LendingActorWorker" if lends else "TrainingActorWorker"
    what_to_do = "leave it out" if name in OUR_ACTORS else f"derive it from {base} of hybridflow.workers.rollout"
    yield (
        f"actor.worker: {name!r} given, but generation has a pool of its own (placement.roles.rollout)"
        f"{', to which slots are lent (placement.lend_idle_slots)' if lends else ''}, and it has no "
        f"{', '.join(sorted(lacking))}; {what_to_do}"
    )


def _engines(config: Config, roles: tuple[str, ...]) -> Iterator[str]:
    """Yield engines that nobody registers."""
    for role in with_models(config, roles):
        name = section(config, role).engine
        yield from component_checks.unknown_name(f"{role}.engine", training_engines, name)
    if "actor" in roles:
        yield from component_checks.unknown_name("rollout.engine", generation_engines, config.rollout.engine)


def _list(names: list[str]) -> str:
    return f"{', '.join(names)}; workers of your own are registered by a module under plugins"
