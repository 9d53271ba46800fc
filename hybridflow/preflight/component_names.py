"""Names of components that `algorithm` gives: is each of them registered? Asked without torch, unless one is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hybridflow.config import auto_settings, recipes
from hybridflow.config.schema import Config
from hybridflow.losses.component_names import component_names, registry_of
from hybridflow.preflight.component_checks import unknown_name

if TYPE_CHECKING:
    from hybridflow.algorithms import Algorithm


def problems(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    """Yield names that nobody registers, as `key: what was found; what to do`."""
    if "advantage" in algorithm.components and config.algorithm.advantage.name in ("none", ""):
        yield (
            f"algorithm.advantage.name: nothing given, and {recipes.called(config)} has an advantage estimator; name "
            f"one of {', '.join(component_names('advantages'))} (a flow without one leaves `advantage` out of its "
            "`components`)"
        )
    for key, registry, name in _named(config, algorithm):
        if name not in component_names(registry):
            yield from unknown_name(f"algorithm.{key}", registry_of(registry), name)


def _named(config: Config, algorithm: type[Algorithm]) -> Iterator[tuple[str, str, str]]:
    """Yield each name that the algorithm has a use for: its key below `algorithm`, its registry, and the name."""
    own = config.algorithm
    loss = own.policy_loss
    if "advantage" in algorithm.components and own.advantage.name not in ("none", ""):
        yield "advantage.name", "advantages", own.advantage.name
    if "policy_loss" in algorithm.components:
        yield "policy_loss.name", "policy_losses", loss.name
        yield "policy_loss.aggregate", "aggregations", loss.aggregate
        yield "policy_loss.kl_estimator", "kl_estimators", loss.kl_estimator
        if loss.correction.name not in ("none", auto_settings.AUTO):
            yield "policy_loss.correction.name", "corrections", loss.correction.name
    if "pair_loss" in algorithm.components:
        yield "pair_loss", "pair_losses", own.pair_loss
    yield "reward_kl_estimator", "kl_estimators", own.reward_kl_estimator
    yield "reward_shaping.name", "reward_shapings", own.reward_shaping.name
    for name in own.reward_shapings:
        yield "reward_shapings", "reward_shapings", name
    if own.rollout_filter.name != "none":
        yield "rollout_filter.name", "rollout_filters", own.rollout_filter.name
    yield "reward_kl_control.name", "kl_controllers", own.reward_kl_control.name
