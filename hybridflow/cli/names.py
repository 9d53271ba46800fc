"""The names that a setting may have, where it names a registered part."""

from __future__ import annotations

from collections.abc import Callable, Iterable

OFF = ("none",)


def names_for(key: str) -> Callable[[], list[str]] | None:
    """What gives the names for a setting of that key, ours and those that plugins have registered; None: it has none.

    Our parts are imported when it is called, and with some of them torch.
    """
    section, _, last = key.rpartition(".")
    if last == "worker":
        return lambda: _workers(section)
    found = _registries().get(key)
    return (lambda: sorted(found())) if found else None


def _workers(role: str) -> list[str]:
    from hybridflow.workers.base import PLAYED_BY, workers

    ours = {name for names in PLAYED_BY.values() for name in names}
    return [*PLAYED_BY.get(role, ()), *sorted(name for name in workers.registered if name not in ours)]


def _registries() -> dict[str, Callable[[], Iterable[str]]]:
    own, loss = "algorithm", "algorithm.policy_loss"
    return {
        f"{own}.name": _algorithms,
        f"{own}.advantage.name": lambda: _losses("advantages", "advantages"),
        f"{own}.pair_loss": lambda: _losses("preference", "pair_losses"),
        f"{own}.reward_kl_control.name": lambda: _losses("controllers", "kl_controllers"),
        f"{own}.reward_kl_estimator": lambda: _losses("kl", "kl_estimators"),
        f"{own}.reward_shaping.name": lambda: _losses("shaping", "reward_shapings"),
        f"{own}.rollout_filter.name": lambda: (*OFF, *_losses("filters", "rollout_filters")),
        f"{loss}.name": lambda: _losses("policy", "policy_losses"),
        f"{loss}.aggregate": lambda: _losses("aggregate", "aggregations"),
        f"{loss}.correction.name": lambda: ("auto", *OFF, *_losses("correction", "corrections")),
        f"{loss}.kl_estimator": lambda: _losses("kl", "kl_estimators"),
        "task.name": lambda: _tasks("tasks"),
        "reward.grader": lambda: _tasks("graders"),
        "cost.grader": lambda: _tasks("graders"),
    }


def _algorithms() -> Iterable[str]:
    from hybridflow.algorithms import algorithms

    return algorithms


def _losses(module: str, registry: str) -> list[str]:
    from importlib import import_module

    return list(getattr(import_module(f"hybridflow.losses.{module}"), registry))


def _tasks(registry: str) -> list[str]:
    from hybridflow.tasks import base

    return list(getattr(base, registry))
