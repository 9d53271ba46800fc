"""SimulatedRun: a run of a schedule on simulated roles, by the very scheduler that real ones are driven by.

It is a discrete-event simulation. Rows in slots advance a token at a time, all at one pace (`simulated_slots`); calls
are jobs, which each pool carries out in order (`simulated_pools`). Slots of the learner's pool that are lent generate
while it has nothing to do, and rest while it works, as in `trainer.schedules.live_rollouts`. Where a schedule generates
a step's rows in one call, that call is a job too, and its rows finish once all that was called for them is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import numpy as np

from hybridflow.planning.estimates import Span
from hybridflow.planning.hardware import slowness
from hybridflow.planning.run_costs import Costs, RunCosts
from hybridflow.planning.simulated_outcome import SimulatedOutcome
from hybridflow.planning.simulated_pools import Job, SimulatedPools
from hybridflow.planning.simulated_slots import GenerationSpans, SimulatedSlots
from hybridflow.scheduling import (
    Admit,
    Event,
    Learned,
    RowFinished,
    SchedulePolicy,
    Scheduler,
    Started,
    Stop,
    Sync,
    Take,
    WeightsPublished,
)
from hybridflow.scheduling.lent_slots import freest

__all__ = ["Costs", "SimulatedOutcome", "SimulatedRun"]


@dataclass
class Bundle:
    """Jobs that are done together, and what is told then."""

    left: set[int]
    events: list[Event]


class SimulatedRun:
    """Drives a scheduler to the end of a run.

    Args:
        lengths: tokens of each prompt's rows, [prompts, samples_per_prompt].
    """

    def __init__(self, policy: SchedulePolicy, lengths: np.ndarray, costs: RunCosts) -> None:
        if lengths.ndim != 2 or lengths.shape[1] != policy.samples_per_prompt:
            raise ValueError(
                f"lengths have shape {list(lengths.shape)}; [prompts, {policy.samples_per_prompt}] was expected"
            )
        self._lengths: list[list[float]] = lengths.tolist()
        self._costs = costs
        self._scheduler = Scheduler(policy, len(lengths))
        self._outcome = SimulatedOutcome()
        self._now = 0.0
        own = SimulatedSlots(costs.slots, partial(costs.pace, lent=False), self._lengths)
        self._slots = {False: own}  # by whether they are lent
        if costs.lent_slots:
            self._slots[True] = SimulatedSlots(costs.lent_slots, partial(costs.pace, lent=True), self._lengths)
        self._pools = SimulatedPools()
        self._bundles: dict[int, Bundle] = {}
        self._sampled: dict[int, range] = {}  # by prompt, the jobs of the call that sampled it
        self._due: deque[Event] = deque()
        self._sync_left: float = inf
        self._sync: Job | None = None
        self._sync_is_due = False
        self._sync_begun = 0.0
        self._generation = GenerationSpans(self._outcome.spans, costs.generates)
        self._version = -1
        self._begun: dict[int, int] = {}  # version that a prompt was first begun with

    def finish(self) -> SimulatedOutcome:
        """Run to the end. Raises RuntimeError if nothing is under way before it."""
        self._tell(Started())
        while not self._scheduler.ended:
            event = self._next_event()
            steps = self._scheduler.step
            self._tell(event)
            if self._scheduler.step > steps:
                self._outcome.ended.append(self._now)
        self._note_generation(())
        self._outcome.seconds = self._now
        self._outcome.dropped = self._scheduler.dropped
        self._outcome.spans += self._pools.spans
        return self._outcome

    # What the scheduler decides

    def _tell(self, event: Event) -> None:
        admitted: list[Admit] = []
        for decision in self._scheduler.take_in(event):
            match decision:
                case Admit(prompt):
                    self._begun.setdefault(prompt, self._version)
                    admitted.append(decision)
                case Take(prompts, step):
                    self._learn(prompts, step)
                case Sync():
                    self._sync_is_due = True
                case Stop(prompts):
                    self._stop(set(prompts))
        self._outcome.max_in_flight = max(self._outcome.max_in_flight, self._scheduler.in_flight)
        if not self._costs.slots:
            self._sample(admitted)
            return
        for one in admitted:  # once it is known whether the learner has work now
            self._freest(len(one.rows)).order(one.prompt, one.rows)
        for slots in self._slots.values():
            slots.fill()

    def _sample(self, admitted: Sequence[Admit]) -> None:
        """Call for the rows of some prompts at once."""
        if not admitted:
            return
        finished: list[Event] = [RowFinished(one.prompt, row, attempt) for one in admitted for row, attempt in one.rows]
        numbers = self._give(self._costs.sampling([self._lengths[one.prompt] for one in admitted]), finished)
        self._sampled |= {one.prompt: numbers for one in admitted}

    def _freest(self, rows: int) -> SimulatedSlots:
        """Return the slots to begin rows on: lent ones too while the learner's device has nothing else to do."""
        if len(self._slots) == 1 or self._pools.is_busy(self._costs.learner):
            return self._slots[False]
        pools = [*self._slots.values()]
        return pools[freest(rows, [pool.load for pool in pools], [pool.slots for pool in pools])]

    def _learn(self, prompts: tuple[int, ...], step: int) -> None:
        jobs = self._costs.learning([self._lengths[prompt] for prompt in prompts])
        sampled = [
            self._sampled.pop(prompt, range(0)) for prompt in prompts
        ]  # of a step in one call, they are the same
        self._give(jobs, [Learned()], sampled[0])
        self._outcome.learning_s += sum(job.seconds for job in jobs)
        self._outcome.trained += [(step, prompt, step - self._begun[prompt]) for prompt in prompts]

    def _give(self, jobs: Sequence[Job], events: list[Event], sampled: Sequence[int] = ()) -> range:
        """Let pools do this after all that they were given before; once it is done, these events have happened."""
        numbers = self._pools.give(jobs, sampled)
        left = {number for number, job in zip(numbers, jobs, strict=True) if job.finishes}
        if not left:
            self._due += events
        self._bundles |= dict.fromkeys(left, Bundle(left, events))
        return numbers

    def _stop(self, prompts: set[int]) -> None:
        for slots in self._slots.values():
            slots.stop(prompts)
        for prompt in prompts:
            del self._begun[prompt]

    def _begin_sync(self) -> None:
        """Begin a sync that the scheduler has decided: where generation is a call, it waits for its turn like any."""
        costs = self._costs
        pools = (costs.generator, costs.learner)
        if not costs.slots and any(map(self._pools.is_busy, pools)):
            return
        self._sync_is_due = False
        self._sync = costs.syncing()
        self._sync_left = self._sync.seconds
        self._sync_begun = self._now
        self._pools.held = pools

    # What happens next

    def _next_event(self) -> Event:
        """Go on to what happens next."""
        while not self._due:
            if self._sync_is_due:
                self._begin_sync()
            lent = [] if self._sync is not None else self._slots_at_work()
            jobs = self._pools.at_work()
            ends = [self._slots[which].next_end() for which in lent]
            work = min([*ends, self._pools.next_end(jobs), self._sync_left])
            if work == inf:
                raise RuntimeError(f"nothing is under way, and the schedule waits for {self._scheduler.waits_for()}")
            self._advance(lent, jobs, work)
            self._sync_left -= work
            if self._sync is not None and self._sync_left <= 0.0:
                return self._end_sync()
            if (number := self._pools.end(jobs, self._now)) is not None:
                self._end_job(number)
            elif ends and min(ends) <= work:
                self._end_row(self._slots[lent[ends.index(min(ends))]])
        return self._due.popleft()

    def _slots_at_work(self) -> list[bool]:
        learns = self._pools.is_busy(self._costs.learner)
        return [lent for lent in self._slots if not (lent and learns)]

    def _advance(self, lent: Sequence[bool], jobs: Sequence[int], work: float) -> None:
        """Let all that is at work do so many seconds of work, which take longer where cores are short."""
        slower = 1.0
        if self._costs.cores:
            ranks = self._pools.ranks(jobs) + (self._sync.ranks if self._sync is not None else 0.0)
            ranks += sum(self._costs.generating_ranks(self._slots[which].at_work, lent=which) for which in lent)
            slower = slowness(ranks, self._costs.cores, self._costs.busy)
        self._note_generation(lent)
        self._pools.advance(jobs, self._now, work)
        for which in lent:
            busy = self._slots[which].at_work * work * slower
            self._outcome.tokens += self._slots[which].advance(work)
            self._outcome.busy += 0.0 if which else busy
            self._outcome.lent += busy if which else 0.0
        self._now += work * slower

    def _end_sync(self) -> Event:
        job = self._sync
        assert job is not None
        for pool in dict.fromkeys((self._costs.generator, self._costs.learner)):
            self._outcome.spans.append(Span(pool, job.role, job.method, self._sync_begun, self._now))
        self._sync = None
        self._sync_left = inf
        self._pools.held = ()
        self._version = self._scheduler.step
        return WeightsPublished(self._version)

    def _end_job(self, number: int) -> None:
        bundle = self._bundles.pop(number, None)
        if bundle is None:
            return
        bundle.left.discard(number)
        if not bundle.left:
            self._due += bundle.events

    def _end_row(self, slots: SimulatedSlots) -> None:
        row = slots.end_row()
        jobs = self._costs.sampling([[self._lengths[row.prompt][row.row]]])
        self._give(jobs, [row])
        slots.fill()

    def _note_generation(self, lent: Sequence[bool]) -> None:
        """Note which slots generate from now on."""
        for which, slots in self._slots.items() if self._costs.slots else ():
            pool = self._costs.learner if which else self._costs.generator
            self._generation.note(which, pool, which in lent and slots.at_work > 0, self._now)
