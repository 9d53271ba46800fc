"""Scheduler: decides, after every event, what is generated, learned from and synced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from hybridflow.scheduling.messages import (
    Admit,
    Decision,
    Event,
    Learned,
    Resumed,
    RowFailed,
    RowFinished,
    Started,
    Stop,
    Sync,
    Take,
    WeightsPublished,
)
from hybridflow.scheduling.over_sampling import next_round, overtaken
from hybridflow.scheduling.rollout_state import NO_WEIGHTS, Rollout, SchedulerState
from hybridflow.scheduling.samplers import samplers
from hybridflow.scheduling.schedule_policy import SchedulePolicy, Stopped
from hybridflow.scheduling.staleness_bound import choose, owed, room


class Scheduler:
    """State machine of a schedule.

    `take_in` is told what has happened, and returns what is to be done now, in this order; nothing: wait. Whoever
    drives it carries the decisions out and tells of it. It has these invariants:

    * a prompt is learned from in exactly one step, or dropped, as only `Stopped.drop` does, and listed;
    * no token is learned from beyond `max_staleness`, and at most (S + 1)·P prompts are in flight (`staleness_bound`);
    * what has finished is never thrown away;
    * until the run has ended, something is under way: rows, the learner, or a sync;
    * weights are synced between two steps of the learner, never within one.

    Its state is plain data. Restored and told `Resumed`, it goes on: what was being generated is generated again, and
    the step that was being learned from is made again whole, as its learner's weights are those of its beginning.

    Args:
        prompts: in the run.
    """

    def __init__(self, policy: SchedulePolicy, prompts: int) -> None:
        self.policy = policy
        self.prompts = prompts
        self._sampler = samplers.get(policy.sampler)()
        self._restore(SchedulerState())

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes: plain JSON."""
        return self._state.to_json()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take in what `state` gave; tell `Resumed` next."""
        self._restore(SchedulerState.from_json(state))

    def _restore(self, state: SchedulerState) -> None:
        self._state = state
        rollouts = state.rollouts.values()
        # Kept beside the state, as they would else be counted anew at every event.
        self._running_rows = sum(len(rollout.running) for rollout in rollouts)
        self._ready = sum(rollout.finished is not None and not rollout.taken for rollout in rollouts)
        self._taken = sum(rollout.taken for rollout in rollouts)
        self._lost = {rollout.prompt for rollout in rollouts if rollout.returned}

    @property
    def ended(self) -> bool:
        """Tell whether every prompt of the run was learned from, or dropped."""
        return self._state.trained + len(self._state.dropped) >= self.prompts

    @property
    def step(self) -> int:
        """Return how many steps were learned from: the version of the learner's weights."""
        return self._state.step

    @property
    def in_flight(self) -> int:
        """Return how many prompts were begun and not learned from."""
        return len(self._state.rollouts)

    @property
    def dropped(self) -> tuple[int, ...]:
        """Return the prompts that are learned from in no step."""
        return tuple(self._state.dropped)

    def version_of(self, prompt: int) -> int:
        """Return the version that no token of a prompt in flight is older than."""
        return self._state.rollouts[prompt].version

    def waits_for(self) -> str:
        """Say what the learner waits for, for whoever looks at a run that seems to stand still."""
        state = self._state
        if self.ended:
            return "nothing: the run has ended"
        if state.syncing or state.learning:
            return "generation to take weights" if state.syncing else f"step {state.step} to be learned from"
        oldest = next((rollout for rollout in state.rollouts.values() if rollout.finished is None), None)
        waiting = f"{self._ready} of {self._next_part()[1]} prompts have finished"
        return waiting if oldest is None else f"{waiting}; the oldest that has not is prompt {oldest.prompt}"

    def take_in(self, event: Event) -> tuple[Decision, ...]:
        """Take in an event; return what is to be done now. Raises ValueError for an event that cannot happen now."""
        match event:
            case RowFinished():
                self._finish(event)
            case RowFailed():
                self._lose(event)
            case Learned():
                self._end_part()
            case WeightsPublished(version):
                self._publish(version)
            case Resumed(lost):
                self._resume(lost)
            case Started():
                pass
        return tuple(self._decide())

    def _decide(self) -> Iterator[Decision]:
        if self.ended or self._state.syncing:
            return
        yield from self._stop()
        if self._may_sync():
            self._state.syncing = True
            yield Sync(self._state.step, self._running_rows > 0)
            return
        yield from self._take()
        yield from self._readmit()
        yield from self._admit()

    # What happened

    def _attempted(self, event: RowFinished | RowFailed) -> Rollout | None:
        """Return the rollout of an event; None: it is of an attempt that counts no more."""
        rollout = self._state.rollouts.get(event.prompt)
        return rollout if rollout is not None and rollout.running.get(event.row) == event.attempt else None

    def _finish(self, event: RowFinished) -> None:
        rollout = self._attempted(event)
        if rollout is None:
            return
        del rollout.running[event.row]
        self._running_rows -= 1
        if not rollout.running and not rollout.returned:
            rollout.finished = self._state.finished
            self._state.finished += 1
            self._ready += 1

    def _lose(self, event: RowFailed) -> None:
        rollout = self._attempted(event)
        if rollout is not None:
            del rollout.running[event.row]
            rollout.returned.append(event.row)
            self._running_rows -= 1
            self._lost.add(rollout.prompt)

    def _end_part(self) -> None:
        state = self._state
        if not state.learning:
            raise ValueError("the learner has learned, but was given nothing")
        state.learning = False
        state.part += 1
        if state.part == self.policy.minibatches or self._taken == self._seats():
            state.rollouts = {prompt: rollout for prompt, rollout in state.rollouts.items() if not rollout.taken}
            state.trained += self._taken
            state.step += 1
            state.part = 0
            self._taken = 0

    def _publish(self, version: int) -> None:
        if not self._state.syncing or version != self._state.step:
            raise ValueError(f"generation has weights of version {version}, but version {self._state.step} was sent")
        self._state.syncing = False
        self._state.version = version

    def _resume(self, lost: frozenset[int]) -> None:
        state = self._state
        for rollout in state.rollouts.values():
            rollout.taken = False
            rollout.returned = sorted([*rollout.returned, *rollout.running])
            rollout.running = {}
            if rollout.prompt in lost:
                rollout.returned = list(range(self.policy.samples_per_prompt))
                rollout.finished = None
        state.syncing = state.learning = False
        state.part = 0
        state.version = NO_WEIGHTS  # whoever generates now may be another process
        self._restore(state)

    # What is to be done

    def _seats(self) -> int:
        """Return how many prompts the step learns from: P, or what is left of the run."""
        return min(self.policy.prompts_per_step, self.prompts - self._state.trained - len(self._state.dropped))

    def _next_part(self) -> tuple[int, int]:
        """Return the next part of the step that has prompts, and how many; a last, small step may have empty parts."""
        seats = self._seats()
        sizes = (
            (part, self.policy.part_size(part, seats)) for part in range(self._state.part, self.policy.minibatches)
        )
        return next((part, size) for part, size in sizes if size)

    def _may_sync(self) -> bool:
        """Tell whether generation is given weights now: older ones are of no more use, and the learner is at rest."""
        state = self._state
        behind = state.version < state.step
        at_rest = not state.learning and not self._taken
        return behind and at_rest and (self.policy.partial or not self._running_rows)

    def _stop(self) -> Iterator[Decision]:
        """Stop what was begun beyond the step's seats as soon as others have filled them."""
        if not self.policy.spare_prompts:
            return
        late = overtaken(self._state.rollouts.values(), self._seats())
        if not late:
            return
        dropped = self.policy.stopped is Stopped.drop
        for rollout in late:
            del self._state.rollouts[rollout.prompt]
            if dropped:
                self._state.dropped.append(rollout.prompt)
            else:
                self._state.stopped[rollout.prompt] = rollout.attempt + 1
            self._running_rows -= len(rollout.running)
            self._lost.discard(rollout.prompt)
        yield Stop(tuple(rollout.prompt for rollout in late), dropped)

    def _take(self) -> Iterator[Decision]:
        """Give the learner its next part if it is at rest and the part is full."""
        state = self._state
        if state.learning:
            return
        part, size = self._next_part()
        if self._ready < size:
            return
        waiting = [rollout for rollout in state.rollouts.values() if not rollout.taken]
        if self.policy.spare_prompts and len(waiting) > self._seats():
            return  # some of them are to be stopped
        window = islice(waiting, max(size, self._sampler.window(self.policy)))
        ranked = sorted((rollout for rollout in window if rollout.finished is not None), key=self._sampler.rank)
        chosen = choose(ranked, size, owed(self.policy, state.step, self._taken, size, waiting))
        if chosen is None:
            return
        for rollout in chosen:
            rollout.taken = True
        state.learning = True
        state.part = part
        self._ready -= size
        self._taken += size
        yield Take(tuple(sorted(rollout.prompt for rollout in chosen)), state.step, self._taken == self._seats())

    def _has_slots(self, rows: int) -> bool:
        slots = self.policy.slots
        return slots is None or self._running_rows == 0 or self._running_rows + rows <= slots

    def _readmit(self) -> Iterator[Decision]:
        """Begin lost rows again, before all others: also while generation finishes its rows for new weights."""
        if self._state.version == NO_WEIGHTS:
            return
        for prompt in sorted(self._lost):
            rollout = self._state.rollouts[prompt]
            if not self._has_slots(len(rollout.returned)):
                return
            rollout.attempt += 1
            again = dict.fromkeys(sorted(rollout.returned), rollout.attempt)
            rollout.running |= again
            rollout.returned = []
            self._running_rows += len(again)
            self._lost.discard(prompt)
            yield Admit(prompt, tuple(again.items()))

    def _admit(self) -> Iterator[Decision]:
        """Begin as many prompts as the bound has room for."""
        state = self._state
        if state.version == NO_WEIGHTS:
            return
        if self.policy.spare_prompts:
            yield from self._admit_round()
            return
        free = room(self.policy, state)
        if state.version < state.step and not self.policy.partial:
            # Rows finish, so that weights can be synced; but the step that is being learned from gets what it lacks.
            free = min(free, self._seats() - len(state.rollouts) if self._taken else 0)
        free = min(free, self.prompts - state.next_prompt)
        if self.policy.whole_batches:
            batch = min(self.policy.prompts_per_step, self.prompts - state.next_prompt)
            free = batch if free >= batch and not self._running_rows else 0
        samples = self.policy.samples_per_prompt
        while free > 0 and self._has_slots(samples):
            yield self._begin(state.next_prompt)
            state.next_prompt += 1
            free -= 1

    def _admit_round(self) -> Iterator[Decision]:
        """Begin a step of over-sampling: those that must not be stopped again, and others beyond its seats."""
        state = self._state
        if state.rollouts or state.version != state.step:
            return
        fresh = self.prompts - state.next_prompt
        again, begun = next_round(self.policy, self._seats(), fresh, state.stopped)
        for prompt in again:
            yield self._begin(prompt, state.stopped.pop(prompt), kept=True)
        for _ in range(begun):
            yield self._begin(state.next_prompt)
            state.next_prompt += 1

    def _begin(self, prompt: int, attempt: int = 0, *, kept: bool = False) -> Admit:
        state = self._state
        running = dict.fromkeys(range(self.policy.samples_per_prompt), attempt)
        due = state.version + self.policy.max_staleness
        state.rollouts[prompt] = Rollout(prompt, state.version, due, attempt, dict(running), kept=kept)
        self._running_rows += len(running)
        return Admit(prompt, tuple(running.items()))
