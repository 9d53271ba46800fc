"""Policy of the schedule that settings choose. Pure; what is checked and what is run ask here."""

from __future__ import annotations

from hybridflow.config.schema import AlgorithmConfig, TrainerConfig
from hybridflow.scheduling import SCHEDULES, SchedulePolicy, Stopped, policy_of


def changes(trainer: TrainerConfig) -> dict[str, object]:
    """Return what settings change of a named schedule's policy."""
    given = {
        "max_staleness": trainer.max_staleness,
        "partial": trainer.partial,
        "sampler": trainer.sampler or None,
        "spare_prompts": trainer.spare_prompts or None,
        "stopped": trainer.stopped if trainer.spare_prompts or trainer.stopped is not Stopped.next_step else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def policy_of_settings(name: str, algorithm: AlgorithmConfig, trainer: TrainerConfig) -> SchedulePolicy:
    """Return the policy of a named schedule, with what the settings change.

    Raises KeyError for another name, ValueError for settings that do not go together.
    """
    given = changes(trainer)
    if learns_in_parts(name):
        given["minibatches"] = algorithm.minibatches
    return policy_of(name, algorithm.prompts_per_step, samples_per_prompt=algorithm.samples_per_prompt, **given)


def learns_in_parts(name: str) -> bool:
    """Tell whether a schedule is one of ours that learns from a minibatch before a step's others have finished."""
    return "minibatches" in SCHEDULES.get(name, {})
