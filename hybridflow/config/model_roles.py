"""Roles of the settings that a model plays: which may, which do, and their sections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from hybridflow.config.schema import Config, TrainedRoleConfig

MODEL_ROLES = ("actor", "critic", "cost_critic", "reference", "reward_model")
BY_MODEL = {"reward": "model", "cost": "cost_model"}  # roles that a grader or a model may play, and the latter's worker


def has_model(config: Config, role: str) -> bool:
    """Whether a model plays a role; reward and cost say so by their worker, else a grader does."""
    return role in MODEL_ROLES or (role in BY_MODEL and section(config, role).worker == BY_MODEL[role])


def with_models(config: Config, roles: Iterable[str]) -> list[str]:
    """Return those of these roles that a model plays, in the order of the settings."""
    chosen = set(roles)
    return [role for role in (*MODEL_ROLES, *BY_MODEL) if role in chosen and has_model(config, role)]


def section(config: Config, role: str) -> TrainedRoleConfig:
    """Return the settings of a role that a model may play."""
    return cast(TrainedRoleConfig, getattr(config, role))
