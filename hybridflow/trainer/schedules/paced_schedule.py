"""PacedSchedule: rows are begun, learned from and given new weights as a `Scheduler` decides, each when it is time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from hybridflow.algorithms.algorithm import Algorithm, made_rows
from hybridflow.algorithms.schedule import Schedule, StepRecorder, schedules
from hybridflow.algorithms.step_context import StepContext
from hybridflow.batch import BatchRef
from hybridflow.batch.joining import concat
from hybridflow.batch.lineage import PLACE
from hybridflow.config.schedule_settings import policy_of_settings
from hybridflow.config.schema import AlgorithmConfig, TrainerConfig
from hybridflow.dispatch.random_streams import STREAM, stream_ids
from hybridflow.scheduling import (
    Admit,
    Event,
    Learned,
    Resumed,
    RowFinished,
    SchedulePolicy,
    Scheduler,
    Started,
    Stop,
    Stopped,
    Sync,
    Take,
    WeightsPublished,
)
from hybridflow.scheduling.rollout_state import SchedulerState
from hybridflow.trainer.schedules.live_rollouts import LiveRollouts
from hybridflow.trainer.schedules.version_bound import VersionBound

log = logging.getLogger(__name__)


class PacedSchedule(Schedule):
    """Carries out what a `Scheduler` decides, on generation whose rows are under way over the ends of steps.

    Prompts are begun ahead. When the scheduler gives some to the learner, the algorithm's `rollout` is called with
    these; what it asks generation for it gets from the rows that have finished, and what else it asks for (other rows,
    other sampling) is generated then. While the driver waits for anything, generation is kept going.

    A prompt is known to the scheduler by its number: p is row p % P of the (p // P)-th draw that was made ahead.
    """

    overlaps = True
    paced = True
    policy_name: ClassVar[str]

    def __init__(self, algorithm: Algorithm, steps: StepRecorder, policy: SchedulePolicy | None = None) -> None:
        super().__init__(algorithm, steps)
        self._policy = policy or policy_of_settings(self.policy_name, algorithm.config, TrainerConfig())
        self._bound = VersionBound(algorithm, self._policy.max_staleness)
        actor: Any = algorithm.actor
        self._actor = actor
        self._rollouts = LiveRollouts(self._actor.rollout_group, steps, self._actor.lent_group)
        self._scheduler: Scheduler | None = None
        self._restored: Mapping[str, Any] = {}
        self._context = StepContext()
        self._draws: dict[int, int] = {}  # the number of each draw that was made ahead, by its place among them
        self._prompts: dict[int, tuple[BatchRef, BatchRef]] = {}  # by its place too: prompts, and the rows of them
        self._attempts: dict[int, RowFinished] = {}  # rows under way by their number: what is told once they are done
        self._finished: dict[tuple[int, int], int] = {}  # numbers of rows, by (prompt, row)
        self._events: deque[Event] = deque()
        self._taken: Take | None = None
        self._answers: dict[tuple[int, int], int] = {}  # rows that the step learns from, by (place of prompt, copy)
        self._learning = False
        self._in_flow = False
        self._warned = False
        self._stopped_prompts = 0  # in this step

    @classmethod
    def of_settings(cls, algorithm: Algorithm, steps: StepRecorder, settings: TrainerConfig) -> Self:
        return cls(algorithm, steps, policy_of_settings(cls.policy_name, algorithm.config, settings))

    def take_step(self, context: StepContext) -> BatchRef:
        self._begin_step(context)
        return self._learn(self._next_taken())

    def _begin_step(self, context: StepContext) -> None:
        self._context = context
        self.steps.begin_step(context.step_index)
        self.algorithm.begin_step(context)
        self._rollouts.holds = False
        self._learning = False
        if self._scheduler is None:
            self._begin(context)
        else:
            self._tell(Learned())  # of the step before; what follows, such as a sync, is counted as this one's
        if self._taken is None:
            self._rollouts.lend()
        self._rollouts.advance()

    def _next_taken(self) -> Take:
        """Wait until the scheduler gives prompts to the learner."""
        while self._taken is None:
            assert self._rollouts.calls, f"nothing is under way, and the learner waits: {self._waits_for()}"
            self.steps.wait_background()
            self._tell_all()
            self._rollouts.advance()
        taken, self._taken = self._taken, None
        return taken

    def finish_step(self) -> dict[str, float]:
        metrics = super().finish_step()
        allowed = self._bound.check(metrics)
        if self._policy.max_staleness:
            metrics["rollout/version_lag_allowed"] = allowed
        if self._policy.spare_prompts:
            metrics["rollout/stopped_prompts"] = self._stopped_prompts
            self._stopped_prompts = 0
        return metrics

    def sync_weights(self) -> None:
        self._actor.sync_in_flight()

    def state(self) -> dict[str, Any]:
        """Return the scheduler's state as it is once the step has been learned from, and the draws that it names.

        Nothing is returned where the run is as after so many steps of sync: then any schedule may go on.
        """
        assert self._scheduler is not None
        after = Scheduler(self._policy, self._scheduler.prompts)
        after.restore(self._scheduler.state())
        after.take_in(Learned())
        known = SchedulerState.from_json(after.state())
        size = self._policy.prompts_per_step
        under_way = known.rollouts or known.stopped or known.dropped or known.next_prompt != known.step * size
        if not under_way:
            self._draws, self._prompts = {}, {}
            return {}
        needed = {self._place(prompt) for prompt in (*known.rollouts, *known.stopped, known.next_prompt)}
        self._draws = {place: draw for place, draw in self._draws.items() if place in needed}
        self._prompts = {place: drawn for place, drawn in self._prompts.items() if place in needed}
        return {"scheduler": after.state(), "draws": sorted(self._draws.items()), "prompts_per_step": size}

    @classmethod
    def state_problem(cls, state: Mapping[str, Any], settings: AlgorithmConfig) -> str:
        size = settings.prompts_per_step
        before = state.get("prompts_per_step", size)
        if before == size:
            return ""
        return (  # its numbers of prompts are of draws of that size
            f"the checkpoint has the state of a schedule with algorithm.prompts_per_step={before}, and {size} is given "
            f"now: prompts under way would be lost or learned from twice; go on with {before}"
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._restored = state

    def sampled(self, prompts: BatchRef, options: Mapping[str, Any]) -> BatchRef | None:
        """Return what the flow of the step asks generation for; see `disaggregated.RowSource`."""
        if not self._in_flow:
            self.rest()
            return None
        number = self.steps.count_sampling()
        wanted = None if options else self._answered(prompts)
        if wanted is None:
            rows = prompts
            if STREAM not in prompts.columns:
                # The rows begun ahead have the streams of a step's first call, also where others are asked for first.
                number += bool(self._answers)
                rows = prompts.for_call(**{STREAM: stream_ids(prompts, self._context.step_index, number)})
            wanted = [*self._rollouts.order(rows, options)]
            self._rollouts.holds = False  # a flow may have synced weights itself, for which rows under way had to rest
            self._rollouts.advance()
            while not all(map(self._rollouts.has, wanted)):
                self.steps.wait_background()
        return self._rollouts.rows(wanted)

    def rest(self) -> None:
        """Let the rows under way finish, and begin no others until the next step."""
        self._rollouts.holds = True
        self._rollouts.lend()
        self._rollouts.advance()
        while self._rollouts.under_way:
            self.steps.wait_background()
        self._rollouts.give_back()

    def _begin(self, context: StepContext) -> None:
        """Take up the run where it is: at its start, or after a resume or a failure."""
        size = self._policy.prompts_per_step
        done = context.step_index
        dropped = self._policy.spare_prompts if self._policy.stopped is Stopped.drop else 0  # at most, by each step
        self._scheduler = Scheduler(self._policy, (size + dropped) * (done + context.steps_left + 1))
        known = SchedulerState(step=done, next_prompt=done * size, trained=done * size)
        if self._restored:
            known = SchedulerState.from_json(self._restored["scheduler"])
            self._draws = dict(self._restored["draws"])
        assert known.step == done, f"the schedule has learned from {known.step} steps, the run from {done}"
        self._scheduler.restore(known.to_json())
        self._actor.row_source = self
        self.steps.keep_going(self._keep_going)
        # Rows that had finished went with the process, or the ranks, that made them.
        self._tell(Resumed(frozenset(known.rollouts)) if self._restored else Started())

    def _keep_going(self) -> None:
        """Take in which rows have finished, and give generation something to do. Waits for nothing."""
        for number in self._rollouts.receive():
            told = self._attempts.pop(number, None)
            if told is not None:
                self._finished[told.prompt, told.row] = number
                self._events.append(told)
        if self._learning:  # then nothing is taken and no weights are synced, but further prompts may be begun
            self._tell_all()
        self._rollouts.advance()

    def _tell_all(self) -> None:
        while self._events:
            self._tell(self._events.popleft())

    def _tell(self, event: Event) -> None:
        assert self._scheduler is not None
        for decision in self._scheduler.take_in(event):
            match decision:
                case Sync(version):
                    self.sync_weights()
                    self._tell(WeightsPublished(version))
                case Take():
                    self._taken = decision
                    self._rollouts.give_back()
                case Admit():
                    self._generate(decision)
                case Stop(prompts):
                    self._stop(prompts)

    def _generate(self, admitted: Admit) -> None:
        prompt = admitted.prompt
        rows = self._drawn(self._place(prompt))[1]
        first = prompt % self._policy.prompts_per_step * self._policy.samples_per_prompt
        numbers = self._rollouts.order(rows.select([first + row for row, _ in admitted.rows]), {})
        for number, (row, attempt) in zip(numbers, admitted.rows, strict=True):
            self._attempts[number] = RowFinished(prompt, row, attempt)

    def _stop(self, prompts: Sequence[int]) -> None:
        under_way = [number for number, told in self._attempts.items() if told.prompt in prompts]
        finished = [key for key in self._finished if key[0] in prompts]
        self._rollouts.stop([*under_way, *(self._finished.pop(key) for key in finished)])
        self._stopped_prompts += len(prompts)
        for number in under_way:
            del self._attempts[number]

    def _learn(self, taken: Take) -> BatchRef:
        """Call the algorithm's flow on prompts whose rows have finished; its calls return at once."""
        size = self._policy.prompts_per_step
        by_place: dict[int, list[int]] = {}
        for prompt in taken.prompts:
            by_place.setdefault(self._place(prompt), []).append(prompt % size)
        prompts = concat([self._drawn(place)[0].select(rows) for place, rows in by_place.items()])
        copies = range(self._policy.samples_per_prompt)
        self._answers = {
            (place, copy): self._finished.pop((prompt, copy))
            for prompt, place in zip(taken.prompts, prompts.lineage[PLACE].tolist(), strict=True)
            for copy in copies
        }
        self._learning = self._in_flow = True
        try:
            made = made_rows(self.algorithm, self.algorithm.learn(self.algorithm.rollout(prompts)))
            self._warn_of_unasked()
            return made
        finally:
            self._in_flow = False
            self._rollouts.forget(self._answers.values())

    def _warn_of_unasked(self) -> None:
        """Say once that the flow does not ask for what was begun ahead."""
        if self._answers and not self._warned:
            self._warned = True
            log.warning(
                "%s did not ask generation for %d rows that were begun ahead, as it does without options: they were "
                "sampled for nothing. Give what its first call changes as settings (rollout), or take trainer.schedule="
                "sync",
                type(self.algorithm).__name__,
                len(self._answers),
            )

    def _answered(self, prompts: BatchRef) -> list[int] | None:
        """Return the numbers of the rows that were begun ahead for these; None: they are others."""
        nothing = np.full(len(prompts), -1)
        places = prompts.lineage.get(PLACE, nothing).tolist()
        keys = [*zip(places, prompts.driver_columns.get("copy_id", nothing).tolist(), strict=True)]
        if len({*keys}) < len(keys) or not all(key in self._answers for key in keys):
            return None
        return [self._answers.pop(key) for key in keys]

    def _waits_for(self) -> str:
        return "" if self._scheduler is None else self._scheduler.waits_for()

    def _place(self, prompt: int) -> int:
        """Return which of the draws that were made ahead has a prompt."""
        return prompt // self._policy.prompts_per_step

    def _drawn(self, place: int) -> tuple[BatchRef, BatchRef]:
        """Return the prompts of a draw, and the rows of them, with the random streams that sync would give them."""
        if place not in self._draws:
            self._draws[place] = self._context.draw_ahead()
        if place not in self._prompts:
            prompts = self._context.draw(self._draws[place])
            rows = prompts.repeat(self._policy.samples_per_prompt)
            self._prompts[place] = prompts, rows.for_call(**{STREAM: stream_ids(rows, place, 0)})
        return self._prompts[place]


@schedules.register("async")
class AsyncSchedule(PacedSchedule):
    """Begins prompts as the bound on staleness has room, while the learner is at others."""

    policy_name = "async"
    lends = True
