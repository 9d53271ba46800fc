"""Graders that the settings of a role choose: which, with which weights and options, for rows of which sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from hybridflow.config.schema import CostConfig, RewardConfig
from hybridflow.errors import shown
from hybridflow.tasks.grader_registry import Answers, BoundGrader, Metadata, bind

GraderSettings = RewardConfig | CostConfig

REWARD_MODEL = "reward_model"
"""Name of the model of `reward.worker = model` among `reward.graders`."""


def weights(settings: GraderSettings) -> Mapping[str, float]:
    """Return all that make a reward, by name, with their weights; of one grader alone the weight is 1."""
    return settings.graders or {settings.grader: 1.0}


def with_reward_model(settings: GraderSettings) -> bool:
    """Tell whether a reward model is one of several graders."""
    return settings.worker == "model" and REWARD_MODEL in settings.graders


def asked(settings: GraderSettings) -> list[str]:
    """Return the graders, in the order of the settings, without the reward model: it is asked for rewards alone."""
    return [name for name in weights(settings) if not (name == REWARD_MODEL and with_reward_model(settings))]


def options(settings: GraderSettings, name: str) -> Mapping[str, Any]:
    """Return the options of a grader."""
    return settings.grader_options.get(name) or {}


def bind_all(settings: GraderSettings) -> list[BoundGrader]:
    """Bring the graders of a role into the inner form, in the order of the settings. Raises as `bind`."""
    return [bind(name, options(settings, name)) for name in asked(settings)]


def grades_source(settings: GraderSettings, name: str, source: str) -> bool:
    """Tell whether a grader grades the rows of a source."""
    sources = settings.grader_sources.get(name)
    return sources is None or source in sources


def accuracy_grader(settings: GraderSettings, source: str | None = None) -> str:
    """Return the grader that says what is right.

    Args:
        source: of the rows; None: of any, whatever `grader_sources` says.

    Raises ValueError if no grader grades the rows of that source.
    """
    names = [name for name in asked(settings) if source is None or grades_source(settings, name, source)]
    if not names:
        row = f"a row is of the source {shown(source)}" if source else "a row has no source"
        mend = "name it there" if source else "let the task give it one"
        raise ValueError(
            f"{row}, and reward.grader_sources leaves no grader for it; {mend}, or leave one of "
            f"{', '.join(settings.grader_sources)} out, which then grades all rows"
        )
    named = getattr(settings, "accuracy_grader", "") or settings.grader
    return named if named in names else names[0]


def answer_checks(settings: RewardConfig) -> Callable[[str], Sequence[Answers]]:
    """Return what gives the checks of an answer by the source of its row. It raises ValueError as `accuracy_grader`."""
    graders = bind_all(settings)

    @cache  # it is asked of every row
    def checks(source: str) -> list[Answers]:
        accuracy_grader(settings, source)
        mine = [grader for grader in graders if grades_source(settings, grader.name, source)]
        return [grader.check_answer for grader in mine if grader.check_answer]

    return checks


def metadata_checks(settings: RewardConfig) -> Callable[[str], Sequence[Metadata]]:
    """Return what gives the checks of a row's metadata by its source."""
    graders = [grader for grader in bind_all(settings) if grader.check_metadata]
    return cache(
        lambda source: [
            grader.check_metadata
            for grader in graders
            if grader.check_metadata and grades_source(settings, grader.name, source)
        ]
    )
