"""WholeSteps: base of schedules that a `Scheduler` decides for, a step's prompts at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from hybridflow.algorithms.algorithm import Algorithm, made_rows
from hybridflow.algorithms.schedule import Schedule, StepRecorder
from hybridflow.algorithms.step_context import StepContext
from hybridflow.batch import BatchRef
from hybridflow.scheduling import (
    Admit,
    Decision,
    Event,
    Learned,
    RowFinished,
    Scheduler,
    Started,
    Sync,
    Take,
    WeightsPublished,
    policy_of,
)
from hybridflow.trainer.schedules.version_bound import VersionBound

SAMPLED = "response_ids"


class WholeSteps(Schedule):
    """Carries out what a `Scheduler` decides, on roles whose calls return at once.

    Calls on a pool run in the order in which they were made. So a sync that is called after the updates of a step, and
    before the next generation, is between them on the ranks, and counts as done when it is called.

    Attributes:
        max_staleness: in steps; with 0 every call is sync's, in its order.
    """

    overlaps = True
    max_staleness: ClassVar[int]

    def __init__(self, algorithm: Algorithm, steps: StepRecorder) -> None:
        super().__init__(algorithm, steps)
        prompts = algorithm.config.prompts_per_step
        self._policy = policy_of("one_step_off", prompts, max_staleness=self.max_staleness)
        self._scheduler: Scheduler | None = None
        self._first = 0  # the scheduler counts steps from where this process takes the run up
        self._newest = -1  # the step that was begun last
        self._contexts: dict[int, StepContext] = {}
        self._generating: dict[int, list[RowFinished]] = {}
        self._rollouts: dict[int, BatchRef] = {}
        self._learned: BatchRef | None = None
        self._bound = VersionBound(algorithm, self.max_staleness)

    def take_step(self, context: StepContext) -> BatchRef:
        self._enter(context)
        if self._scheduler is None:
            self._first = context.step_index
            self._contexts[0] = context
            self._scheduler = Scheduler(self._policy, self._policy.prompts_per_step * (context.steps_left + 1))
            self._tell(Started())
        else:
            self._tell(Learned())  # of the step before; what follows, such as a sync, is counted as this one's
        while self._learned is None:
            self._wait_for_rollout()
        self._enter(context)  # the next step may have begun
        rows, self._learned = self._learned, None
        return rows

    def finish_step(self) -> dict[str, float]:
        metrics = super().finish_step()
        self._bound.check(metrics)
        return metrics

    def _tell(self, event: Event) -> None:
        assert self._scheduler is not None
        self._carry_out(self._scheduler.take_in(event))

    def _wait_for_rollout(self) -> None:
        """Wait until the rollout that was begun first has been sampled, and tell of its rows.

        What scores them may still be at it, on a pool that generation and the actor need not wait for.
        """
        step = min(self._generating)
        rows = self._rollouts[step]
        if SAMPLED in rows.columns:
            rows.lengths(SAMPLED)
        else:  # of a flow that calls it otherwise
            self.steps.wait_step(self._first + step)
        for event in self._generating.pop(step):
            self._tell(event)

    def _carry_out(self, decisions: Iterable[Decision]) -> None:
        begun: list[int] = []
        for decision in decisions:
            match decision:
                case Sync(version):
                    self.sync_weights()
                    self._tell(WeightsPublished(version))
                case Take(_, step):
                    self._learn(step)
                case Admit(prompt, rows):
                    step = prompt // self._policy.prompts_per_step
                    begun += [step] * (step not in begun)
                    finished = [RowFinished(prompt, row, attempt) for row, attempt in rows]
                    self._generating.setdefault(step, []).extend(finished)
        for step in begun:
            self._generate(step)

    def _generate(self, step: int) -> None:
        """Call for a step's rollout, with the weights that generation has."""
        if step not in self._contexts:
            following = self._contexts[step - 1].following()
            assert following is not None, "the scheduler admits no prompts beyond the run's last step"
            self._contexts[step] = following
        context = self._contexts[step]
        self._enter(context)
        prompts = context.next_prompts()
        actor: Any = self.algorithm.actor
        with actor.weights_as_synced():
            self._rollouts[step] = self.algorithm.rollout(prompts)

    def _learn(self, step: int) -> None:
        self._enter(self._contexts[step])
        self._learned = made_rows(self.algorithm, self.algorithm.learn(self._rollouts.pop(step)))
        self._contexts.pop(step - 1, None)

    def _enter(self, context: StepContext) -> None:
        """Count calls as this step's, which may have begun before."""
        if context.step_index > self._newest:
            self._newest = context.step_index
            self.steps.begin_step(context.step_index)
        else:
            self.steps.enter_step(context.step_index)
        self.algorithm.begin_step(context)
