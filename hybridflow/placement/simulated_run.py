"""SimulatedRun: a run of a schedule on simulated roles, by the very scheduler that real ones are driven by.

It is a discrete-event simulation. Rows in slots advance a token at a time, all at one pace, which falls with their
number as decoding's does; what finds no slot waits in the engine's queue. The learner's time goes with tokens. The two
have devices of their own, as on placement=rollout_pool. What scores rows, such as a reference, is on the learner's: it
takes its turn there, and a row has finished only then.
"""

from __future__ import annotations

import heapq
from collections import deque
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
    """

    slots: int
    token_s: float = 1.0
    alone: float = 0.5
    learned_token_s: float = 0.0
    scored_token_s: float = 0.0
    sync_s: float = 0.0

    def pace(self, rows: int) -> float:
        """Return the seconds that a token takes with so many rows in slots."""
        return self.token_s * (self.alone + (1.0 - self.alone) * rows / self.slots)


@dataclass
class SimulatedOutcome:
    """What a simulated run came to.

    Attributes:
        trained: (step, prompt, versions that its oldest weights were behind the step's), in the order of learning.
        dropped: prompts that were learned from in no step.
        max_in_flight: prompts begun and not learned from at once.
        tokens: that were generated, also what was stopped.
        busy: slot-seconds of generation.
        learning_s: seconds in which the learner worked.
        ended: when each step had been learned from.
    """

    seconds: float = 0.0
    trained: list[tuple[int, int, int]] = field(default_factory=list)
    dropped: tuple[int, ...] = ()
    max_in_flight: int = 0
    tokens: float = 0.0
    busy: float = 0.0
    learning_s: float = 0.0
    ended: list[float] = field(default_factory=list)

    def keeps(self, policy: SchedulePolicy, prompts: int) -> bool:
        """Tell whether every prompt was learned from once or dropped, and nothing is beyond the bounds."""
        once = sorted([prompt for _, prompt, _ in self.trained] + [*self.dropped]) == list(range(prompts))
        within = all(behind <= policy.max_staleness for _, _, behind in self.trained)
        return once and within and self.max_in_flight <= policy.max_in_flight


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
        self._advanced = 0.0  # tokens that a row has gained which has been in a slot all the time
        self._rows: dict[tuple[int, int], int] = {}  # in slots, with their attempts
        self._ends: list[tuple[float, int, int, int]] = []  # by `_advanced`; some of rows that were stopped
        self._queue: deque[tuple[int, int, int]] = deque()
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
        for decision in self._scheduler.take_in(event):
            match decision:
                case Admit(prompt, rows):
                    self._begun.setdefault(prompt, self._version)
                    self._queue += [(prompt, row, attempt) for row, attempt in rows]
                case Take(prompts, step):
                    self._learn(prompts, step)
                case Sync():
                    self._synced_at = self._now + self._costs.sync_s
                    self._job_ends_at += self._costs.sync_s
                case Stop(prompts):
                    self._stop(set(prompts))
        self._outcome.max_in_flight = max(self._outcome.max_in_flight, self._scheduler.in_flight)
        self._fill()

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
        for key in [key for key in self._rows if key[0] in prompts]:
            del self._rows[key]
        self._queue = deque(row for row in self._queue if row[0] not in prompts)
        for prompt in prompts:
            del self._begun[prompt]

    def _fill(self) -> None:
        """Put rows of the queue into free slots."""
        while self._queue and len(self._rows) < self._costs.slots:
            prompt, row, attempt = self._queue.popleft()
            self._rows[prompt, row] = attempt
            heapq.heappush(self._ends, (self._advanced + self._lengths[prompt][row], prompt, row, attempt))

    def _next_event(self) -> Event:
        """Go on to what happens next."""
        while True:
            while self._ends and self._rows.get(self._ends[0][1:3]) != self._ends[0][3]:
                heapq.heappop(self._ends)
            pace = self._costs.pace(len(self._rows))
            paused = self._synced_at < inf
            row_at = self._now + (self._ends[0][0] - self._advanced) * pace if self._ends and not paused else inf
            at = min(row_at, self._job_ends_at, self._synced_at)
            if at == inf:
                raise RuntimeError(f"nothing is under way, and the schedule waits for {self._scheduler.waits_for()}")
            if not paused:
                self._advance(at, pace)
            self._now = at
            if at == self._synced_at:
                self._synced_at = inf
                self._version = self._scheduler.step
                return WeightsPublished(self._version)
            if at == self._job_ends_at:
                return self._end_job()
            row = self._end_row()
            if not self._costs.scored_token_s:
                return row
            self._give_learner(self._lengths[row.prompt][row.row] * self._costs.scored_token_s, row)
            self._fill()

    def _advance(self, to: float, pace: float) -> None:
        """Let the rows in slots gain tokens until then."""
        if self._rows:
            self._outcome.busy += len(self._rows) * (to - self._now)
            self._outcome.tokens += len(self._rows) * (to - self._now) / pace
            self._advanced += (to - self._now) / pace

    def _end_row(self) -> RowFinished:
        self._advanced, prompt, row, attempt = heapq.heappop(self._ends)
        del self._rows[prompt, row]
        return RowFinished(prompt, row, attempt)
