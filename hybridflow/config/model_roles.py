"""Roles that have a model: which may, which do under given settings, and their sections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from hybridflow.config import sections
from hybridflow.config.schema import Config, TrainedRoleConfig

MODEL_ROLES = ("actor", "critic", "cost_critic", "reference", "reward_model")
BY_MODEL = {"reward": "model", "cost": "cost_model"}  # roles with a grader or a model, and the latter's worker


def has_model(config: Config, role: str) -> bool:
    """Tell whether a role has a model.

    Reward and cost have one if their worker says so, else they have a grader; a role of the user has one if its section
    derives from `TrainedRoleConfig`.
    """
    if role in BY_MODEL:
        return section(config, role).worker == BY_MODEL[role]
    return isinstance(getattr(config, role, None), TrainedRoleConfig)


def with_models(config: Config, roles: Iterable[str]) -> list[str]:
    """Return those of these roles that have a model, in the order of the settings."""
    chosen = set(roles)
    return [role for role in names(config) if role in chosen and has_model(config, role)]


def names(config: Config) -> tuple[str, ...]:
    """Return the roles that have a model or could have one, in the order of the settings; the user's come last."""
    own = (name for name in sections.added() if isinstance(getattr(config, name, None), TrainedRoleConfig))
    return (*MODEL_ROLES, *BY_MODEL, *own)


def section(config: Config, role: str) -> TrainedRoleConfig:
    """Return the settings of a role that may have a model."""
    return cast(TrainedRoleConfig, getattr(config, role))
