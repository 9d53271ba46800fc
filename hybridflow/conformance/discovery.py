"""What modules register."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hybridflow.algorithms import algorithms
from hybridflow.algorithms.schedule import schedules
from hybridflow.dispatch import protocols
from hybridflow.engines.base import generation_engines, training_engines
from hybridflow.environments import environments
from hybridflow.environments.tools import tools
from hybridflow.losses.advantages import advantages
from hybridflow.losses.aggregations import aggregations
from hybridflow.losses.corrections import corrections
from hybridflow.losses.kl_controllers import kl_controllers
from hybridflow.losses.kl_estimators import kl_estimators
from hybridflow.losses.loss import losses
from hybridflow.losses.policy_losses import policy_losses
from hybridflow.losses.preference_losses import pair_losses
from hybridflow.losses.reward_shapings import reward_shapings
from hybridflow.losses.rollout_filters import rollout_filters
from hybridflow.observe.sinks import metric_sinks
from hybridflow.registry import Registry
from hybridflow.roles import roles
from hybridflow.scheduling.samplers import samplers
from hybridflow.tasks import graders, tasks
from hybridflow.workers import workers

REGISTRIES: tuple[Registry[Any], ...] = (
    tasks, graders, protocols, roles, workers, reward_shapings, advantages, rollout_filters, corrections, policy_losses,
    losses, aggregations, pair_losses, kl_estimators, kl_controllers, metric_sinks, schedules, training_engines,
    generation_engines, algorithms, environments, tools, samplers,
)  # fmt: skip
Registered = Mapping[str, Mapping[str, Any]]
"""By the kind of a registry, what is new in it, by name."""


def registered(load: Callable[[], None]) -> Registered:
    """Collect what is registered while `load` imports modules, but for our own that it may import as well."""
    before = {registry.kind: registry.registered for registry in REGISTRIES}
    load()
    return {
        registry.kind: {
            name: component
            for name, component in registry.registered.items()
            if name not in before[registry.kind] and not ours(component)
        }
        for registry in REGISTRIES
    }


def names(registered_components: Registered) -> list[str]:
    """Name each component as `policy loss 'mine'`."""
    return [f"{kind} {name!r}" for kind, components in registered_components.items() for name in components]


def ours(component: object) -> bool:
    """Tell whether hybridflow itself brings a component."""
    return str(getattr(component, "__module__", "")).partition(".")[0] == "hybridflow"


IN_RUNS_ALONE = tuple(registry.kind for registry in (schedules, training_engines, generation_engines))
"""Kinds of components that nothing but a run tries."""
