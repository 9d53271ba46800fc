"""Graders that the settings of a role choose: which, with which weights and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridflow.config.schema import CostConfig, RewardConfig
from hybridflow.tasks.grader_registry import BoundGrader, bind

GraderSettings = RewardConfig | CostConfig


def weights(settings: GraderSettings) -> Mapping[str, float]:
    """Return the names of the graders with their weights; of one alone the weight is 1."""
    return settings.graders or {settings.grader: 1.0}


def options(settings: GraderSettings, name: str) -> Mapping[str, Any]:
    """Return the options of a grader."""
    return settings.grader_options.get(name) or {}


def bind_all(settings: GraderSettings) -> list[BoundGrader]:
    """Bring the graders of a role into the inner form, in the order of the settings. Raises as `bind`."""
    return [bind(name, options(settings, name)) for name in weights(settings)]


def accuracy_grader(settings: RewardConfig) -> str:
    """Return the grader that says what is right."""
    names = list(weights(settings))
    return settings.accuracy_grader or (settings.grader if settings.grader in names else names[0])
