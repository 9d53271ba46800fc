"""Graders of rows that are conversations: what their environment gave is their grade."""

from __future__ import annotations

from hybridflow.tasks.graded_row import Grade, GradedRow
from hybridflow.tasks.grader_registry import graders


class EnvironmentFailedError(RuntimeError):
    """The environment of a row failed, so there is nothing to grade it by."""


@graders.register("environment")
def environment(row: GradedRow) -> float:
    """Return the sum of the rewards that the row's environment gave. A row whose environment failed has no grade."""
    return sum(_rewards(row))


@graders.register("environment_turns", token_rewards=True)
def environment_turns(row: GradedRow) -> Grade:
    """Return the rewards that the row's environment gave, each at the last token of its turn.

    The last turn's is the grade, the others are values of tokens: together they are what `environment` gives.
    """
    rewards = list(_rewards(row))
    last = rewards.pop()  # a conversation ends with a turn of the policy
    return Grade(last, token_rewards=[*rewards, 0.0])


def _rewards(row: GradedRow) -> list[float]:
    if row.environment_failure:
        raise EnvironmentFailedError(row.environment_failure)
    if not row.turn_rewards:
        raise ValueError("the row has no rewards of an environment; set environment.name, or choose another grader")
    return list(row.turn_rewards)
