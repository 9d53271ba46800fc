"""Graders that the settings of a role choose: which, with which weights and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridflow.config.schema import CostConfig, RewardConfig
from hybridflow.tasks.grader_registry import BoundGrader, bind, graders

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


def answer_key(settings: RewardConfig, response: str) -> str:
    """Return what a response comes to: equal ones are the same answer where a majority of several is asked for.

    The grader that says what is right may say so, with an attribute `answer_key`, a function of a response; else it is
    the text less white space at its ends.
    """
    key = getattr(graders.get(accuracy_grader(settings)), "answer_key", None)
    return str(key(response)) if key else response.strip()


def accuracy_grader(settings: RewardConfig) -> str:
    """Return the grader that says what is right."""
    names = list(weights(settings))
    return settings.accuracy_grader or (settings.grader if settings.grader in names else names[0])
