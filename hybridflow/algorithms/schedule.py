"""Schedule: the order in which a run takes its steps, and the registry of schedules.

It stands here, below the trainer, so that the settings can be checked before anything is imported that starts ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol, Self

from hybridflow.algorithms.algorithm import Algorithm
from hybridflow.algorithms.step_context import StepContext
from hybridflow.batch import BatchRef
from hybridflow.config.schema import AlgorithmConfig, TrainerConfig
from hybridflow.errors import HybridFlowError
from hybridflow.registry import Registry


class Reported(Protocol):
    """Call that some ranks have yet to report on.

    Attributes:
        missing: how many.
    """

    missing: int


class StepRecorder(Protocol):
    """Knows which step a call belongs to: the supervisor, as a schedule sees it."""

    def begin_step(self, step: int) -> None:
        """Count the calls from now on as this step's."""

    def enter_step(self, step: int) -> None:
        """Count the calls from now on as those of a step that was begun before and is not finished."""

    def wait_step(self, step: int | None) -> None:
        """Wait for the calls of a step that were made so far."""

    def finish_step(self) -> dict[str, float]:
        """Wait for the calls of the step; return what they measured."""
        raise NotImplementedError

    def count_sampling(self) -> int:
        """Count a call that samples; return how many were made before it in this step."""
        raise NotImplementedError

    def keep_going(self, work: Callable[[], None] | None) -> None:
        """Do this whenever a call has been reported while somebody waits; it waits for nothing itself."""

    def background(self) -> AbstractContextManager[Sequence[Reported]]:
        """Count calls that are made in the block as part of no step: no barrier waits for them. Yields them."""
        raise NotImplementedError

    def wait_background(self) -> None:
        """Wait until a call in the background has reported on some rank."""


class Schedule(ABC):
    """Owns the order of a step: when prompts are drawn, weights are synced, and the algorithm samples and learns.

    Attributes:
        overlaps: it generates for a step while another learns; so generation needs a pool of its own, and the algorithm
            a `rollout` and a `learn`.
        paced: its rows are under way over the ends of steps, as a `SchedulePolicy` says.
        lends: rows that were begun on slots of the learner's rest while it works; one that does not overlap begins none
            that would have to.
        in_parts: it calls the flow for each minibatch of a step; so each must be learned from as if it were alone.
        algorithm: whose steps it takes.
        steps: counts calls to their steps.
    """

    overlaps: ClassVar[bool] = False
    paced: ClassVar[bool] = False
    lends: ClassVar[bool] = False
    in_parts: ClassVar[bool] = False

    def __init__(self, algorithm: Algorithm, steps: StepRecorder) -> None:
        self.algorithm = algorithm
        self.steps = steps

    @classmethod
    def of_settings(cls, algorithm: Algorithm, steps: StepRecorder, settings: TrainerConfig) -> Self:
        """Make the schedule of a run."""
        return cls(algorithm, steps)

    @abstractmethod
    def take_step(self, context: StepContext) -> BatchRef:
        """Make all calls of a step and return its rows; calls may still be under way.

        Raises HybridFlowError if the algorithm gives no rows.
        """

    def finish_step(self) -> dict[str, float]:
        """Wait for the step that was taken; return what its calls measured. Raises RoleError if one failed."""
        return self.steps.finish_step()

    def state(self) -> dict[str, Any]:
        """Return, after a step, what a resumed run needs to know beside the number of steps: plain JSON."""
        return {}

    @classmethod
    def state_problem(cls, state: Mapping[str, Any], settings: AlgorithmConfig) -> str:
        """Tell why a run cannot go on from what a schedule gave as its `state`; "": it can. Asked before the start.

        One that restores states of its own takes any, unless it says here which it does not.
        """
        if not state or cls.restore is not Schedule.restore:
            return ""
        return (
            f"the checkpoint has the state of another schedule, whose prompts under way {cls.__name__} would lose or "
            "learn from twice; go on with trainer.schedule as it was"
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take in what `state` gave, before the first step. Raises HybridFlowError for what another schedule gave."""
        if state and (problem := self.state_problem(state, self.algorithm.config)):
            raise HybridFlowError(problem)

    def sync_weights(self) -> None:
        """Give generation the newest weights, if the algorithm samples at all.

        This decides when they travel. That no row is ever sampled from older ones is not left to a schedule, unless it
        `overlaps`: the ranks that generate check it at each call, for a flow may learn and sample again within a step.
        """
        if self.algorithm.samples_from_actor():
            self.algorithm.actor.sync_weights()


def step_of(schedule: Schedule, context: StepContext) -> BatchRef:
    """Take one step and return its rows. Raises HybridFlowError if the schedule gives none."""
    rows: object = schedule.take_step(context)
    if not isinstance(rows, BatchRef):
        raise HybridFlowError(
            f"{type(schedule).__name__}.take_step gave a {type(rows).__name__}; the rows of the step (a BatchRef) were "
            "expected: end it with `return rollout`"
        )
    return rows


MODULES = ("sync", "one_step_off", "paced_schedule", "stream_schedule")
schedules: Registry[type[Schedule]] = Registry(
    "schedule", *(f"hybridflow.trainer.schedules.{name}" for name in MODULES), of=Schedule
)
