"""RandomRun: drives a scheduler by events in a random order, and keeps books of its own, which a test compares."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from typing import Any

from hybridflow.scheduling import (
    Admit,
    Decision,
    Event,
    Learned,
    Resumed,
    RowFailed,
    RowFinished,
    SchedulePolicy,
    Scheduler,
    Started,
    Stop,
    Sync,
    Take,
    WeightsPublished,
)


@dataclass
class Books:
    """What has really happened.

    Attributes:
        running: attempts by (prompt, row).
        finished: versions that sampled, oldest first, by (prompt, row).
        sampled: the same, of rows that are being generated.
        under_way: prompts that the learner has and is not done with.
        step_prompts: prompts of the step that it is in.
        trained: (step, prompts) of each step.
    """

    version: int = -1
    step: int = 0
    syncing: bool = False
    running: dict[tuple[int, int], int] = field(default_factory=dict)
    finished: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    sampled: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    under_way: Take | None = None
    step_prompts: list[int] = field(default_factory=list)
    trained: list[list[int]] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)

    def copy(self) -> Books:
        """Return books that change no more with these; `deepcopy` takes as long as a whole run."""
        return replace(
            self,
            running=dict(self.running),
            finished={key: [*versions] for key, versions in self.finished.items()},
            sampled={key: [*versions] for key, versions in self.sampled.items()},
            step_prompts=[*self.step_prompts],
            trained=[*self.trained],  # a step that is in it changes no more
            dropped=[*self.dropped],
        )


class RandomRun:
    """A run whose events come in a random order; every decision is checked as it comes.

    Args:
        faults: share of events that are failures, resumes from the newest state, or from an older one.
    """

    def __init__(self, policy: SchedulePolicy, prompts: int, seed: int, faults: float = 0.0) -> None:
        self.policy = policy
        self.prompts = prompts
        self.chance = random.Random(seed)
        self.faults = faults
        self.books = Books()
        self.decisions: list[Decision] = []
        self.scheduler = Scheduler(policy, prompts)
        self._kept = self._snapshot()
        self._faults_left = 12  # or a run of many faults would take too long to end

    def finish(self) -> Books:
        """Run to the end; what it trained on is then complete."""
        self.tell(Started())
        while not self.scheduler.ended:
            self.tell(self._event())
        assert not self.books.running and self.books.under_way is None
        trained = [prompt for step in self.books.trained for prompt in step]
        assert sorted(trained + self.books.dropped) == list(range(self.prompts)), "a prompt is lost or doubled"
        return self.books

    def tell(self, event: Event) -> None:
        for decision in self.scheduler.take_in(event):
            self.decisions.append(decision)
            self._carry_out(decision)
        assert self.scheduler.in_flight <= self.policy.max_in_flight

    def _event(self) -> Event:
        if self._faults_left and self.chance.random() < self.faults:
            self._faults_left -= 1
            return self._fault()
        if self.chance.random() < 0.05:
            return RowFinished(self.chance.randrange(self.prompts), 0, -1)  # of no attempt that counts
        events: list[Any] = [*self.books.running.items()]
        events += ["learned"] * (self.books.under_way is not None) + ["published"] * self.books.syncing
        assert events, f"nothing is under way, and it waits for {self.scheduler.waits_for()}"
        event = self.chance.choice(events)
        if event == "learned":
            return self._learned()
        if event == "published":
            return self._published()
        (prompt, row), _ = event
        return self._finished(prompt, row)

    def _learned(self) -> Event:
        books = self.books
        assert books.under_way is not None
        books.step_prompts += books.under_way.prompts
        if books.under_way.last:
            books.trained.append(books.step_prompts)
            books.finished = {key: known for key, known in books.finished.items() if key[0] not in books.step_prompts}
            books.step_prompts = []
            books.step += 1
        books.under_way = None
        return Learned()

    def _published(self) -> Event:
        books = self.books
        books.syncing = False
        books.version = books.step
        for versions in books.sampled.values():
            versions.append(books.version)
        return WeightsPublished(books.version)

    def _finished(self, prompt: int, row: int) -> Event:
        attempt = self.books.running.pop((prompt, row))
        self.books.finished[prompt, row] = self.books.sampled.pop((prompt, row))
        return RowFinished(prompt, row, attempt)

    def _fault(self) -> Event:
        kind = self.chance.choice(("row", "row", "process", "old"))
        if kind == "row" and self.books.running:
            prompt, row = self.chance.choice([*self.books.running])
            del self.books.sampled[prompt, row]
            return RowFailed(prompt, row, self.books.running.pop((prompt, row)))
        if kind == "process":
            self._kept = self._snapshot()
        return self._resumed()

    def _snapshot(self) -> tuple[str, Books]:
        return json.dumps(self.scheduler.state()), self.books.copy()

    def _resumed(self) -> Event:
        """Begin a new process from what is kept; some finished rows are lost with the old one."""
        state, books = self._kept
        self.books = books = books.copy()
        self.scheduler = Scheduler(self.policy, self.prompts)
        self.scheduler.restore(json.loads(state))
        books.under_way = None
        books.step_prompts = []  # the step is made again
        books.running = {}
        books.sampled = {}
        books.syncing = False
        books.version = -1
        lost = {prompt for prompt, _ in books.finished if self.chance.random() < 0.3}
        books.finished = {key: versions for key, versions in books.finished.items() if key[0] not in lost}
        return Resumed(frozenset(lost))

    def _carry_out(self, decision: Decision) -> None:
        books = self.books
        match decision:
            case Admit(prompt, rows):
                assert books.version >= 0 and not books.syncing
                for row, attempt in rows:
                    assert (prompt, row) not in books.running, "a row is generated twice at once"
                    assert (prompt, row) not in books.finished, "a finished row is thrown away"
                    books.running[prompt, row] = attempt
                    books.sampled[prompt, row] = [books.version]
                if self.policy.slots is not None:
                    assert len(books.running) <= max(self.policy.slots, self.policy.samples_per_prompt)
            case Take(prompts, step):
                self._check_taken(prompts, step)
                books.under_way = decision
            case Sync(version, in_flight):
                assert version == books.step and books.under_way is None and not books.step_prompts
                assert in_flight == bool(books.running)
                assert self.policy.partial or not in_flight
                books.syncing = True
            case Stop(prompts, dropped):
                self._stop(prompts, dropped)

    def _check_taken(self, prompts: tuple[int, ...], step: int) -> None:
        books = self.books
        assert books.under_way is None and step == books.step and prompts
        assert not {*books.step_prompts} & {*prompts}
        for prompt in prompts:
            for row in range(self.policy.samples_per_prompt):
                versions = books.finished[prompt, row]
                assert step - versions[0] <= self.policy.max_staleness, "a row is learned from beyond the bound"
                assert self.policy.partial or len(versions) == 1

    def _stop(self, prompts: tuple[int, ...], dropped: bool) -> None:
        for prompt in prompts:
            rows = [key for key in (*self.books.running, *self.books.finished) if key[0] == prompt]
            for key in rows:
                self.books.running.pop(key, None)
                self.books.sampled.pop(key, None)
                self.books.finished.pop(key, None)
        if dropped:
            self.books.dropped += prompts
