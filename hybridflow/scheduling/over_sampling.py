"""Over-sampling: a step begins more prompts than it has seats, and stops those that others overtake.

What has been stopped is in `SchedulerState.stopped`, until it is generated anew: in the next step or, where `Stopped`
says so, together with others in a step of their own, which no spare prompt overtakes (tail batching).
"""

from __future__ import annotations

from collections.abc import Collection

from hybridflow.scheduling.rollout_state import Rollout
from hybridflow.scheduling.schedule_policy import SchedulePolicy, Stopped


def overtaken(rollouts: Collection[Rollout], seats: int) -> list[Rollout]:
    """Return what is to be stopped of a step with so many seats: all that others have left no seat for.

    What is kept has its seat, whether it has finished or not.
    """
    open_seats = seats - sum(rollout.kept for rollout in rollouts)
    if sum(rollout.finished is not None and not rollout.kept for rollout in rollouts) < open_seats:
        return []
    return [rollout for rollout in rollouts if rollout.finished is None and not rollout.kept]


def next_round(policy: SchedulePolicy, seats: int, fresh: int, stopped: Collection[int]) -> tuple[list[int], int]:
    """Return what a step begins: prompts that were stopped before, and how many that were never begun.

    Args:
        seats: prompts that the step learns from.
        fresh: prompts of the run that were never begun.
    """
    again = sorted(stopped)[:seats]
    spare = policy.spare_prompts
    if policy.stopped is Stopped.long_round:
        if len(stopped) >= seats or fresh < seats:
            spare = 0
        else:
            again = []
    return again, min(fresh, seats - len(again) + spare) if len(again) < seats else 0
