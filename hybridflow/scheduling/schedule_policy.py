"""SchedulePolicy: what tells one schedule from another, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Stopped(StrEnum):
    """What becomes of the prompts that over-sampling stops."""

    next_step = "next_step"  # they are in the next step, which waits for them
    long_round = "long_round"  # they wait until they fill a step of their own (RollPacker, arXiv 2509.21009)
    drop = "drop"  # they are learned from in no step; short responses are then over-represented


@dataclass(frozen=True)
class SchedulePolicy:
    """Settings of a scheduler.

    Attributes:
        prompts_per_step: P.
        samples_per_prompt: rows of a prompt.
        max_staleness: S: a step learns from no token that was sampled with weights more than so many published
            versions older than its own.
        partial: rows go on over an update of the weights; else generation gets weights once it has finished its rows.
        minibatches: parts that a step takes its prompts in, each as soon as it is full.
        whole_batches: prompts are admitted a step's at a time, when no others are being generated.
        sampler: which finished prompts are learned from, by name.
        window: of the sampler `windowed_fifo`, in steps.
        spare_prompts: how many more than P are generated in a step, which ends with the first P.
        stopped: what becomes of the others.
        slots: rows that are generated at once, at most; None: the engine's queue has the others.
    """

    prompts_per_step: int
    samples_per_prompt: int = 1
    max_staleness: int = 0
    partial: bool = False
    minibatches: int = 1
    whole_batches: bool = False
    sampler: str = "fifo"
    window: int = 1
    spare_prompts: int = 0
    stopped: Stopped = Stopped.next_step
    slots: int | None = None

    def __post_init__(self) -> None:
        least = {"prompts_per_step": 1, "samples_per_prompt": 1, "minibatches": 1, "window": 1}
        for name in (*least, "max_staleness", "spare_prompts"):
            if getattr(self, name) < least.get(name, 0):
                raise ValueError(f"{name} = {getattr(self, name)}: at least {least.get(name, 0)} was expected")
        if self.slots is not None and self.slots < 1:
            raise ValueError(f"slots = {self.slots}: at least 1 was expected, or none given")
        if self.minibatches > self.prompts_per_step:
            raise ValueError(
                f"minibatches = {self.minibatches}: each needs a prompt, and prompts_per_step = {self.prompts_per_step}"
            )
        if self.slots is not None and (self.whole_batches or self.spare_prompts):
            raise ValueError(
                f"slots = {self.slots} begins prompts one by one, but whole_batches = {self.whole_batches} and "
                f"spare_prompts = {self.spare_prompts} begin them a step's at a time: leave slots out"
            )
        if self.spare_prompts and (self.max_staleness or self.minibatches > 1):
            raise ValueError(
                f"spare_prompts = {self.spare_prompts} end a step early, which goes with max_staleness = 0 and "
                f"minibatches = 1 alone; they are {self.max_staleness} and {self.minibatches}"
            )

    @property
    def max_in_flight(self) -> int:
        """Return how many prompts may have been begun and not learned from at once: (S + 1) · P, and the spare ones."""
        return (self.max_staleness + 1) * self.prompts_per_step + self.spare_prompts

    def part_size(self, part: int, seats: int) -> int:
        """Return how many prompts a part of a step with so many `seats` takes; parts differ by one at most."""
        return seats * (part + 1) // self.minibatches - seats * part // self.minibatches


SCHEDULES: dict[str, dict[str, Any]] = {
    "sync": {},
    "one_step_off": {"max_staleness": 1, "whole_batches": True},
    "async": {"max_staleness": 1, "partial": True, "sampler": "windowed_fifo", "window": 2},
    "stream": {"minibatches": 4, "sampler": "windowed_fifo"},
}
"""What each named schedule sets; all else is `SchedulePolicy`'s default."""


def policy_of(name: str, prompts_per_step: int, **changes: Any) -> SchedulePolicy:
    """Return the policy of a named schedule with some changes.

    Raises KeyError for another name, ValueError for settings that do not go together.
    """
    return SchedulePolicy(prompts_per_step, **{**SCHEDULES[name], **changes})
