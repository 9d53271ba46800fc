"""What a setting may be, where that can be listed: names of registered components, and fixed values."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hybridflow.config import key_suggestions, setting_keys
from hybridflow.losses.component_names import component_names

OFF = ("none",)


def names_for(key: str) -> Callable[[], list[str]] | None:
    """Return a function that lists the names for a setting, ours and those of plugins; None: the setting takes no name.

    No torch is imported when it is called.
    """
    section, _, last = key.rpartition(".")
    if last == "worker":
        return lambda: _workers(section)
    if last == "engine":
        return lambda: _engines(section)
    registry = _registries().get(key)
    return (lambda: sorted(registry())) if registry else None


def values_for(key: str) -> Callable[[], list[str]] | None:
    """Return a function that lists what a setting may be: names, values of an enumeration, true and false."""
    named = names_for(key)
    fixed = setting_keys.values_of(key_suggestions.kind_of(key))
    return named or ((lambda: fixed) if fixed else None)


def _workers(role: str) -> list[str]:
    from hybridflow.registry import is_users
    from hybridflow.workers.worker import OUR_WORKERS, workers

    users = sorted(name for name, worker in workers.registered.items() if is_users(worker))
    return [*OUR_WORKERS.get(role, ()), *users]


def _engines(role: str) -> list[str]:
    from hybridflow.engines.base import generation_engines, training_engines

    return sorted(generation_engines if role == "rollout" else training_engines)


def _registries() -> dict[str, Callable[[], Iterable[str]]]:
    own = "algorithm"
    loss = "algorithm.policy_loss"
    return {
        f"{own}.name": _algorithms,
        f"{own}.advantage.name": lambda: (*OFF, *component_names("advantages")),
        f"{own}.pair_loss": lambda: component_names("pair_losses"),
        f"{own}.reward_kl_control.name": lambda: component_names("kl_controllers"),
        f"{own}.reward_kl_estimator": lambda: component_names("kl_estimators"),
        f"{own}.reward_shaping.name": lambda: component_names("reward_shapings"),
        f"{own}.rollout_filter.name": lambda: (*OFF, *component_names("rollout_filters")),
        f"{loss}.name": lambda: component_names("policy_losses"),
        f"{loss}.aggregate": lambda: component_names("aggregations"),
        f"{loss}.correction.name": lambda: ("auto", *OFF, *component_names("corrections")),
        f"{loss}.kl_estimator": lambda: component_names("kl_estimators"),
        "task.name": _tasks,
        "environment.name": _environments,
        "reward.grader": _graders,
        "reward.accuracy_grader": _graders,
        "cost.grader": _graders,
        "trainer.schedule": _schedules,
        "trainer.sampler": _samplers,
    }


def _algorithms() -> Iterable[str]:
    from hybridflow.algorithms import algorithms

    return algorithms


def _schedules() -> Iterable[str]:
    from hybridflow.algorithms.schedule import schedules

    return schedules


def _samplers() -> Iterable[str]:
    from hybridflow.scheduling import samplers

    return samplers


def _tasks() -> Iterable[str]:
    from hybridflow.tasks import tasks

    return tasks


def _environments() -> Iterable[str]:
    from hybridflow.environments import environments

    return environments


def _graders() -> Iterable[str]:
    from hybridflow.tasks import graders

    return graders
