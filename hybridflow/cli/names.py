"""What a setting may be, where that can be listed: names of registered components, and fixed values."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import hybridflow
from hybridflow.config import key_suggestions, setting_keys

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
        f"{own}.advantage.name": lambda: (*OFF, *_losses("advantages", "advantages")),
        f"{own}.pair_loss": lambda: _losses("preference_losses", "pair_losses"),
        f"{own}.reward_kl_control.name": lambda: _losses("kl_controllers", "kl_controllers"),
        f"{own}.reward_kl_estimator": lambda: _losses("kl_estimators", "kl_estimators"),
        f"{own}.reward_shaping.name": lambda: _losses("reward_shapings", "reward_shapings"),
        f"{own}.rollout_filter.name": lambda: (*OFF, *_losses("rollout_filters", "rollout_filters")),
        f"{loss}.name": lambda: _losses("policy_losses", "policy_losses"),
        f"{loss}.aggregate": lambda: _losses("aggregations", "aggregations"),
        f"{loss}.correction.name": lambda: ("auto", *OFF, *_losses("corrections", "corrections")),
        f"{loss}.kl_estimator": lambda: _losses("kl_estimators", "kl_estimators"),
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


def _losses(module: str, registry: str) -> list[str]:
    """List the components of a registry of losses; if nobody has imported it, by its source: importing takes torch."""
    name = f"hybridflow.losses.{module}"
    if name in sys.modules:  # as by a plugin that registers one
        return list(getattr(sys.modules[name], registry))
    sources = sorted((Path(hybridflow.__file__).parent / "losses").glob("*.py"))
    registered = re.compile(rf'^@{registry}\.register\("(\w+)"', re.MULTILINE)
    return sorted(found for file in sources for found in registered.findall(file.read_text(encoding="utf-8")))


def _tasks() -> Iterable[str]:
    from hybridflow.tasks import tasks

    return tasks


def _environments() -> Iterable[str]:
    from hybridflow.environments import environments

    return environments


def _graders() -> Iterable[str]:
    from hybridflow.tasks import graders

    return graders
