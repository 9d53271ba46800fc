"""SimulatedRun: a run of a schedule on simulated roles, by the very scheduler that real ones are driven by.

It is a discrete-event simulation. Rows in slots advance a token at a time, all at one pace, which falls with their
number as decoding's does; what finds no slot waits in the engine's queue. The learner's time goes with tokens. The two
have devices of their own, as on placement=rollout_pool. What scores rows, such as a reference, is on the learner's: it
takes its turn there, and a row has finished only then. Slots of the learner's device that are lent generate while it
has nothing to do, and rest while it works, as in `trainer.schedules.live_rollouts`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np

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


@dataclass(frozen=True)
class Costs:
    """Seconds that simulated roles take.

    Attributes:
        slots: rows that generation advances at once.
        token_s: to advance all slots by a token.
        alone: share of `token_s` that one row alone takes: decoding reads all weights for one row too.
        learned_token_s: to learn from a token.
        scored_token_s: to score a token, which is done on the learner's device.
        sync_s: to give generation new weights, in which neither role works.
        lent_slots: rows that the learner's device advances at once while it has nothing else to do, as fast.
    """

    slots: int
    token_s: float = 1.0
    alone: float = 0.5
    learned_token_s: float = 0.0
    scored_token_s: float = 0.0
    sync_s: float = 0.0
    lent_slots: int = 0


@dataclass
class SimulatedOutcome:
    """What a simulated run came to.

    Attributes:
        trained: (step, prompt, versions that its oldest weights were behind the step's), in the order of learning.
        dropped: prompts that were learned from in no step.
        max_in_flight: prompts begun and not learned from at once.
        tokens: that were generated, also what was stopped.
        busy: slot-seconds of generation on its own device.
        lent: those on the learner's.
        learning_s: seconds in which the learner worked.
        ended: when each step had been learned from.
    """

    seconds: float = 0.0
    trained: list[tuple[int, int, int]] = field(default_factory=list)
    dropped: tuple[int, ...] = ()
    max_in_flight: int = 0
    tokens: float = 0.0
    busy: float = 0.0
    lent: float = 0.0
    learning_s: float = 0.0
    ended: list[float] = field(default_factory=list)

    def keeps(self, policy: SchedulePolicy, prompts: int) -> bool:
        """Tell whether every prompt was learned from once or dropped, and nothing is beyond the bounds."""
        once = sorted([prompt for _, prompt, _ in self.trained] + [*self.dropped]) == list(range(prompts))
        within = all(behind <= policy.max_staleness for _, _, behind in self.trained)
        return once and within and self.max_in_flight <= policy.max_in_flight


class SimulatedSlots:
    """Rows on one device, in slots or in the queue for them.

    Args:
        slots: rows that advance at once.

    Attributes:
        pace: seconds that a token takes now.
    """

    def __init__(self, slots: int, costs: Costs, lengths: list[list[int]]) -> None:
        self.slots = slots
        self._costs = costs
        self._lengths = lengths
        self._advanced = 0.0  # tokens that a row has gained which has been in a slot all the time
        self._rows: dict[tuple[int, int], int] = {}  # in slots, with their attempts
        self._ends: list[tuple[float, int, int, int]] = []  # by `_advanced`; some of rows that were stopped
        self._queue: deque[tuple[int, int, int]] = deque()

    @property
    def load(self) -> int:
        """Return how many rows it has."""
        return len(self._rows) + len(self._queue)

    @property
    def pace(self) -> float:
        costs = self._costs
        return costs.token_s * (costs.alone + (1.0 - costs.alone) * len(self._rows) / self.slots)

    def order(self, prompt: int, rows: Sequence[tuple[int, int]]) -> None:
        """Queue rows of a prompt, with their attempts."""
        self._queue += [(prompt, row, attempt) for row, attempt in rows]

    def fill(self) -> None:
        """Put rows of the queue into free slots."""
        while self._queue and len(self._rows) < self.slots:
            prompt, row, attempt = self._queue.popleft()
            self._rows[prompt, row] = attempt
            heapq.heappush(self._ends, (self._advanced + self._lengths[prompt][row], prompt, row, attempt))

    def stop(self, prompts: Collection[int]) -> None:
        """End the rows of these prompts."""
        for key in [key for key in self._rows if key[0] in prompts]:
            del self._rows[key]
        self._queue = deque(row for row in self._queue if row[0] not in prompts)

    def next_end(self, now: float) -> float:
        """Return when a row finishes, if nothing comes between; inf: none is in a slot."""
        while self._ends and self._rows.get(self._ends[0][1:3]) != self._ends[0][3]:
            heapq.heappop(self._ends)
        return now + (self._ends[0][0] - self._advanced) * self.pace if self._ends else inf

    def advance(self, seconds: float) -> tuple[float, float]:
        """Let the rows in slots gain tokens; return the slot-seconds and the tokens."""
        if not self._rows:
            return 0.0, 0.0
        gained = seconds / self.pace
        busy, tokens = len(self._rows) * seconds, len(self._rows) * seconds / self.pace
        self._advanced += gained
        return busy, tokens

    def end_row(self) -> RowFinished:
        """Take out the row that finishes first."""
        self._advanced, prompt, row, attempt = heapq.heappop(self._ends)
        del self._rows[prompt, row]
        return RowFinished(prompt, row, attempt)


class SimulatedRun:
    """Drives a scheduler to the end of a run.

    Args:
        lengths: tokens of each prompt's rows, [prompts, samples_per_prompt].
    """

    def __init__(self, policy: SchedulePolicy, lengths: np.ndarray, costs: Costs) -> None:
        if lengths.ndim != 2 or lengths.shape[1] != policy.samples_per_prompt:
            raise ValueError(
                f"lengths have shape {list(lengths.shape)}; [prompts, {policy.samples_per_prompt}] was expected"
            )
        self._lengths = lengths.tolist()
        self._costs = costs
        self._scheduler = Scheduler(policy, len(lengths))
        self._outcome = SimulatedOutcome()
        self._now = 0.0
        self._own = SimulatedSlots(costs.slots, costs, self._lengths)
        self._lent = SimulatedSlots(costs.lent_slots, costs, self._lengths) if costs.lent_slots else None
        self._pools = [pool for pool in (self._own, self._lent) if pool is not None]
        self._jobs: deque[tuple[float, Event]] = deque()  # of the learner's device: seconds, and what they end with
        self._job_ends_at = inf
        self._synced_at = inf
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
        self._outcome.seconds = self._now
        self._outcome.dropped = self._scheduler.dropped
        return self._outcome

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
                    self._synced_at = self._now + self._costs.sync_s
                    self._job_ends_at += self._costs.sync_s
                case Stop(prompts):
                    self._stop(set(prompts))
        self._outcome.max_in_flight = max(self._outcome.max_in_flight, self._scheduler.in_flight)
        for one in admitted:  # once it is known whether the learner has work now
            self._freest(len(one.rows)).order(one.prompt, one.rows)
        for pool in self._pools:
            pool.fill()

    def _freest(self, rows: int) -> SimulatedSlots:
        """Return the slots to begin rows on: lent ones too while the learner's device has nothing else to do."""
        if self._lent is None or self._jobs:
            return self._own
        pools = self._pools
        return pools[freest(rows, [pool.load for pool in pools], [pool.slots for pool in pools])]

    def _learn(self, prompts: tuple[int, ...], step: int) -> None:
        tokens = sum(sum(self._lengths[prompt]) for prompt in prompts)
        seconds = tokens * self._costs.learned_token_s
        self._give_learner(seconds, Learned())
        self._outcome.learning_s += seconds
        self._outcome.trained += [(step, prompt, step - self._begun[prompt]) for prompt in prompts]

    def _give_learner(self, seconds: float, event: Event) -> None:
        """Let the learner's device do this after all that it was given before."""
        if not self._jobs:
            self._job_ends_at = self._now + seconds
        self._jobs.append((seconds, event))

    def _end_job(self) -> Event:
        _, event = self._jobs.popleft()
        self._job_ends_at = self._now + self._jobs[0][0] if self._jobs else inf
        return event

    def _stop(self, prompts: set[int]) -> None:
        for pool in self._pools:
            pool.stop(prompts)
        for prompt in prompts:
            del self._begun[prompt]

    def _next_event(self) -> Event:
        """Go on to what happens next."""
        while True:
            at_work = [] if self._synced_at < inf else [self._own]
            if at_work and self._lent is not None and not self._jobs:
                at_work.append(self._lent)
            ends = [pool.next_end(self._now) for pool in at_work]
            at = min([*ends, self._job_ends_at, self._synced_at])
            if at == inf:
                raise RuntimeError(f"nothing is under way, and the schedule waits for {self._scheduler.waits_for()}")
            for pool in at_work:
                self._advance(pool, at - self._now)
            self._now = at
            if at == self._synced_at:
                self._synced_at = inf
                self._version = self._scheduler.step
                return WeightsPublished(self._version)
            if at == self._job_ends_at:
                return self._end_job()
            pool = at_work[ends.index(at)]
            row = pool.end_row()
            if not self._costs.scored_token_s:
                return row
            self._give_learner(self._lengths[row.prompt][row.row] * self._costs.scored_token_s, row)
            pool.fill()

    def _advance(self, pool: SimulatedSlots, seconds: float) -> None:
        busy, tokens = pool.advance(seconds)
        self._outcome.tokens += tokens
        if pool is self._own:
            self._outcome.busy += busy
        else:
            self._outcome.lent += busy
