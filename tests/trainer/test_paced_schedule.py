"""Schedules whose rows are under way over the ends of steps, on generation that finishes rows in any order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.algorithms import Algorithm
from hybridflow.algorithms.schedule import schedules
from hybridflow.batch import Batch, BatchRef
from hybridflow.batch.lineage import PLACE
from hybridflow.config.schema import AlgorithmConfig, Config, TrainerConfig
from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.parallel.layout import Layout
from hybridflow.preflight import load
from hybridflow.scheduling import SchedulePolicy, Stopped, policy_of
from hybridflow.trainer.checkpoint import check_schedule
from hybridflow.trainer.checkpoint_store import CheckpointError
from hybridflow.trainer.progress import Progress
from hybridflow.trainer.prompt_draws import PromptDraws
from hybridflow.trainer.saved_state import STATE, SavedState
from hybridflow.trainer.schedules.paced_schedule import AsyncSchedule, PacedSchedule

PROMPTS, SAMPLES = 3, 2


@dataclass
class Call:
    """A call that its rank has yet to report on."""

    under_way: dict[int, tuple[int, int, int]]
    missing: int = 1
    rows: list[tuple[int, ...]] = field(default_factory=list)


class Generation:
    """Stands for the ranks that generate and for the supervisor: each call finishes some of the rows under way."""

    def __init__(self, seed: int, *, lends: bool = False) -> None:
        self._random = Random(seed)
        self._under_way: dict[int, tuple[int, int, int]] = {}
        self.lent_group = Lent(self) if lends else None
        self.layout = Layout()
        self.learns = False
        self._calls: list[Call] = []
        self._sampled = 0
        self.version = -1
        self.trained = 0
        self.work: Callable[[], None] = lambda: None
        self.stopped: list[int] = []
        self.most = 0

    def advance_rollouts(self, rows: BatchRef | None, *, stop: list[int], **_: Any) -> BatchRef:
        return self.advance(self._under_way, rows, stop)

    def advance(self, under_way: dict[int, tuple[int, int, int]], rows: BatchRef | None, stop: list[int]) -> BatchRef:
        for number in stop:
            under_way.pop(number, None)
        self.stopped += stop
        if rows is not None:
            given = rows.get()
            for number, prompt, stream in zip(
                *(given.dense(name).tolist() for name in ("rollout_id", "prompt", "stream_id")), strict=True
            ):
                assert number not in self.rows
                under_way[number] = (prompt, stream, self.version)
        self.most = max(self.most, len(self.rows))
        call = Call(under_way)
        self._calls.append(call)
        return BatchRef.deferred(lambda: finished_rows(call))

    def report(self) -> None:
        """Let the oldest call finish some rows, of a few that are under way at least one."""
        call = next(call for call in self._calls if call.missing)
        numbers = [number for number in call.under_way if self._random.random() < 0.3]
        numbers = numbers or [*call.under_way][: self._random.randrange(2)]
        call.rows = [(number, *call.under_way.pop(number)) for number in numbers]
        call.missing = 0
        self.work()

    @property
    def rows(self) -> dict[int, tuple[int, int, int]]:
        """All rows under way."""
        return self._under_way | (self.lent_group.under_way if self.lent_group else {})

    # The actor of a run, as the schedule sees it

    @property
    def rollout_group(self) -> Generation:
        return self

    def sync_in_flight(self) -> None:
        self.version = self.trained

    # The supervisor

    def begin_step(self, step: int) -> None:
        self._sampled = 0

    def count_sampling(self) -> int:
        self._sampled += 1
        return self._sampled - 1

    def keep_going(self, work: Callable[[], None]) -> None:
        self.work = work

    @contextmanager
    def background(self) -> Iterator[list[Call]]:
        before = len(self._calls)
        made: list[Call] = []
        try:
            yield made
        finally:
            made += self._calls[before:]

    def wait_background(self) -> None:
        self.report()

    def finish_step(self) -> dict[str, float]:
        for _ in range(self._random.randrange(4)):  # rows finish while the learner is at work
            if any(call.missing for call in self._calls):
                self.report()
        self.trained += 1
        self.learns = False
        return {}


class Lent:
    """Stands for the learner's own ranks: what is called on them while it learns would have to wait."""

    layout = Layout(data=2)

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self.under_way: dict[int, tuple[int, int, int]] = {}
        self.begun = 0
        self.rests = True

    def advance_rollouts(self, rows: BatchRef | None, *, stop: list[int], **_: Any) -> BatchRef:
        assert not self._generation.learns
        self.rests = False
        self.begun += 0 if rows is None else len(rows)
        return self._generation.advance(self.under_way, rows, stop)

    def rest_rollouts(self) -> None:
        self.rests = True


def finished_rows(call: Call) -> BatchRef:
    assert not call.missing, "nobody waits for a call that has not been reported"
    columns = np.array(call.rows, dtype=np.int64).reshape(-1, 4).T
    return BatchRef.from_local(Batch(**dict(zip(("rollout_id", "of", "stream", "version"), columns, strict=True))))


class Learner(Algorithm):
    """Learns from groups; keeps what it was given."""

    roles = ("actor",)
    learned: list[list[int]]
    streams: dict[tuple[int, int], int]

    def rollout(self, prompts: BatchRef) -> BatchRef:
        rows = prompts.repeat(SAMPLES)
        return rows | self.actor.row_source.sampled(rows, {})  # type: ignore[attr-defined]

    def learn(self, rollout: BatchRef) -> BatchRef:
        lent = self.actor.lent_group  # type: ignore[attr-defined]
        assert lent is None or lent.rests, "the learner has its slots"
        self.actor.learns = True  # type: ignore[attr-defined]
        rows = rollout.get()
        prompts = rows.dense("prompt").tolist()
        assert prompts == rows.dense("of").tolist(), "a prompt has its own rows"
        versions = rows.dense("version")
        assert versions.min() >= self.actor.trained - self.staleness  # type: ignore[attr-defined]
        copies = zip(prompts, rows.dense("copy_id").tolist(), rows.dense("stream").tolist(), strict=True)
        self.streams |= {(prompt, copy): stream for prompt, copy, stream in copies}
        self.learned.append(prompts[::SAMPLES])
        return rollout


def learner(generation: Generation, policy: SchedulePolicy, cls: type[Learner] = Learner) -> Any:
    config = AlgorithmConfig(name="mine", prompts_per_step=PROMPTS, samples_per_prompt=SAMPLES)
    made: Any = cls(config, {"actor": generation})
    made.learned, made.streams, made.staleness = [], {}, policy.max_staleness
    return made


def drawn(number: int) -> BatchRef:
    places = number * PROMPTS + np.arange(PROMPTS)
    return BatchRef.from_local(Batch(prompt=places)).placed(places)


def taken(
    algorithm: Any,
    generation: Generation,
    policy: SchedulePolicy,
    progress: Progress,
    steps: int,
    until: int,
    cls: type[PacedSchedule] = AsyncSchedule,
) -> None:
    """Take steps as a run does, up to `until`; what is left then is the progress."""
    schedule = cls(algorithm, generation, policy)
    schedule.restore(json.loads(json.dumps(progress.schedule)))
    draws = PromptDraws(drawn, progress, steps)
    while progress.steps < until:
        assert len(schedule.take_step(draws.context(progress.steps))) == PROMPTS * SAMPLES
        schedule.finish_step()
        draws.end_step(progress.steps)
        progress.schedule = schedule.state()
        progress.steps += 1


POLICIES = {
    "async, S = 0": policy_of("async", PROMPTS, samples_per_prompt=SAMPLES, max_staleness=0),
    "async, S = 2": policy_of("async", PROMPTS, samples_per_prompt=SAMPLES, max_staleness=2),
    "not partial": policy_of("async", PROMPTS, samples_per_prompt=SAMPLES, max_staleness=2, partial=False),
    "over-sampled": policy_of(
        "async", PROMPTS, samples_per_prompt=SAMPLES, max_staleness=0, spare_prompts=2, stopped=Stopped.next_step
    ),
    "tail batching": policy_of(
        "async", PROMPTS, samples_per_prompt=SAMPLES, max_staleness=0, spare_prompts=2, stopped=Stopped.long_round
    ),
    "fifo": policy_of("async", PROMPTS, samples_per_prompt=SAMPLES, sampler="fifo"),
}


@settings(max_examples=20)
@given(
    name=st.sampled_from(sorted(POLICIES)),
    seed=st.integers(0, 999),
    killed=st.lists(st.integers(1, 6), max_size=3),
    lends=st.booleans(),
)
def test_prompts_are_learned_from_once_each_within_the_bound_also_where_it_is_killed(
    name: str, seed: int, killed: list[int], lends: bool
) -> None:
    policy = POLICIES[name]
    steps = 7
    progress = Progress()
    learned: list[list[int]] = []
    streams: dict[tuple[int, int], int] = {}
    for number, until in enumerate([*sorted(killed), steps]):
        generation = Generation(seed + number, lends=lends and POLICIES[name].partial)
        generation.trained = progress.steps
        algorithm = learner(generation, policy)
        taken(algorithm, generation, policy, progress, steps, until)
        assert generation.most <= policy.max_in_flight * SAMPLES
        learned += algorithm.learned
        streams |= algorithm.streams
    assert sorted(prompt for step in learned for prompt in step) == [*range(steps * PROMPTS)]
    assert len(set(streams.values())) == len(streams) == steps * PROMPTS * SAMPLES
    if (policy.max_staleness == 0 and not policy.spare_prompts) or policy.sampler == "fifo":
        assert learned == [[*drawn(step).lineage[PLACE]] for step in range(steps)], "those of sync, in its order"


class Greedy(Learner):
    """Asks for greedy rows besides, and for further prompts."""

    further: list[int]

    def rollout(self, prompts: BatchRef) -> BatchRef:
        source: Any = self.actor.row_source  # type: ignore[attr-defined]
        rows = super().rollout(prompts)
        greedy = source.sampled(prompts, {"temperature": 0.0})
        assert greedy.get().dense("of").tolist() == prompts.get().dense("prompt").tolist()
        more = self.next_prompts()
        assert source.sampled(more, {}).get().dense("of").tolist() == more.get().dense("prompt").tolist()
        self.further += more.get().dense("prompt").tolist()
        return rows


def test_what_else_a_flow_asks_for_is_generated_beside_the_rows_under_way() -> None:
    policy = POLICIES["async, S = 2"]
    generation = Generation(1)
    algorithm = learner(generation, policy, Greedy)
    algorithm.further = []
    progress = Progress()
    taken(algorithm, generation, policy, progress, 4, 4)
    used = [prompt for step in algorithm.learned for prompt in step] + algorithm.further
    assert len(set(used)) == len(used) == 8 * PROMPTS, "no prompt comes twice"
    assert progress.draws == 8


class Scouting(Learner):
    """Asks twice for rows that are sampled otherwise before it asks for those begun ahead, and once afterwards."""

    scouted: list[int]

    def rollout(self, prompts: BatchRef) -> BatchRef:
        rows = prompts.repeat(SAMPLES)
        before = [self.otherwise(rows) for _ in range(2)]
        learned = super().rollout(prompts)
        for found in (*before, self.otherwise(rows)):
            self.scouted += found.get().dense("stream").tolist()
        return learned

    def otherwise(self, rows: BatchRef) -> BatchRef:
        found: BatchRef = self.actor.row_source.sampled(rows, {"temperature": 0.5})  # type: ignore[attr-defined]
        return found


def test_rows_that_are_asked_for_first_do_not_share_random_streams_with_those_begun_ahead() -> None:
    policy = POLICIES["async, S = 0"]
    generation = Generation(1)
    algorithm = learner(generation, policy, Scouting)
    algorithm.scouted = []
    taken(algorithm, generation, policy, Progress(), 3, 3)
    streams = [*algorithm.streams.values(), *algorithm.scouted]
    assert len(set(streams)) == len(streams) == 4 * 3 * PROMPTS * SAMPLES


class Otherwise(Scouting):
    """Never asks for the rows that were begun ahead."""

    def rollout(self, prompts: BatchRef) -> BatchRef:
        rows = prompts.repeat(SAMPLES)
        return rows | self.otherwise(rows)


def test_a_flow_that_never_asks_for_rows_begun_ahead_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    policy = POLICIES["async, S = 0"]
    generation = Generation(1)
    taken(learner(generation, policy, Otherwise), generation, policy, Progress(), 3, 3)
    [said] = [record.message for record in caplog.records if "begun ahead" in record.message]
    assert said.startswith(f"Otherwise did not ask generation for {PROMPTS * SAMPLES} rows")


class Syncing(Scouting):
    """Syncs weights itself before it asks for rows that are sampled otherwise."""

    def otherwise(self, rows: BatchRef) -> BatchRef:
        self.actor.row_source.rest()  # type: ignore[attr-defined]
        return super().otherwise(rows)


@pytest.mark.parametrize("lends", [False, True])
def test_a_flow_that_syncs_weights_itself_gets_rows_afterwards(lends: bool) -> None:
    policy = POLICIES["async, S = 2"]
    generation = Generation(1, lends=lends)
    algorithm = learner(generation, policy, Syncing)
    algorithm.scouted = []
    taken(algorithm, generation, policy, Progress(), 3, 3)
    assert len({*algorithm.scouted}) == 3 * 3 * PROMPTS * SAMPLES


def test_prompts_that_a_validation_kept_waiting_begin_on_lent_slots_too() -> None:
    generation = Generation(3, lends=True)
    policy = POLICIES["async, S = 2"]
    schedule, _ = after_a_step(generation, policy)
    rollouts = schedule._rollouts
    lent = rollouts._lent
    assert lent is not None
    schedule.sampled(drawn(0), {})
    for prompt in range(4):
        rollouts.order(drawn(9).repeat(SAMPLES).select([prompt, prompt + 1]).for_call(stream_id=np.arange(2)), {})
    rollouts.advance()
    assert not generation.rows and not lent.load, "they wait for the next step"
    rollouts.holds = False
    rollouts.lend()
    rollouts.advance()
    assert lent.load, "the pool is chosen when they begin"


class Failing(Learner):
    """Fails before it asks for anything."""

    def rollout(self, prompts: BatchRef) -> BatchRef:
        raise HybridFlowError("a rank is lost")


def test_a_flow_that_fails_is_told_nothing_of_rows_that_it_had_no_time_to_ask_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    generation = Generation(1)
    policy = POLICIES["async, S = 0"]
    with pytest.raises(HybridFlowError, match="a rank is lost"):
        taken(learner(generation, policy, Failing), generation, policy, Progress(), 3, 3)
    assert not caplog.records


def after_a_step(generation: Generation, policy: SchedulePolicy) -> tuple[AsyncSchedule, PromptDraws]:
    """A run that has taken the first of four steps, as its schedule and what it draws."""
    schedule = AsyncSchedule(learner(generation, policy), generation, policy)
    draws = PromptDraws(drawn, Progress(), 4)
    schedule.take_step(draws.context(0))
    schedule.finish_step()
    return schedule, draws


def test_rows_under_way_finish_before_a_call_that_is_no_step_s() -> None:
    generation = Generation(3)
    schedule, draws = after_a_step(generation, POLICIES["async, S = 2"])
    assert schedule.sampled(drawn(0), {}) is None, "generation is called as ever"
    assert not generation._under_way
    draws.end_step(0)
    schedule.take_step(draws.context(1))


@pytest.mark.parametrize("name", ["async, S = 0", "async, S = 2"])
def test_lent_slots_take_prompts_while_the_learner_waits_and_rest_while_it_works(name: str) -> None:
    policy = POLICIES[name]
    generation = Generation(3, lends=True)
    lent: Any = generation.lent_group
    algorithm = learner(generation, policy)
    taken(algorithm, generation, policy, Progress(), 6, 6)
    share = lent.begun / (6 * PROMPTS * SAMPLES)
    assert 0.2 < share < 0.8, "both pools began some; with the learner at rest, two in three replicas are lent"
    assert lent.rests and not lent.under_way


def test_lent_slots_finish_what_rests_on_them_before_a_call_that_is_no_step_s() -> None:
    policy = POLICIES["async, S = 2"]
    generation = Generation(3, lends=True)
    algorithm = learner(generation, policy)
    schedule = AsyncSchedule(algorithm, generation, policy)
    draws = PromptDraws(drawn, Progress(), 4)
    schedule.take_step(draws.context(0))
    schedule.finish_step()
    lent: Any = generation.lent_group
    assert lent.under_way, "nothing rests: this shows nothing"
    schedule.sampled(drawn(0), {})
    assert not generation.rows and lent.rests


@pytest.mark.parametrize("stopped", list(Stopped))
def test_rows_that_over_sampling_stops_are_gone_before_a_call_that_is_no_step_s(stopped: Stopped) -> None:
    policy = policy_of("async", PROMPTS, samples_per_prompt=SAMPLES, max_staleness=0, spare_prompts=2, stopped=stopped)
    generation = Generation(0)
    schedule, _ = after_a_step(generation, policy)
    assert schedule.sampled(drawn(0), {}) is None, "generation is called as ever"
    assert generation.stopped and not generation._under_way, "an engine with rows of a session takes no others"


def test_prompts_that_over_sampling_drops_are_replaced_by_others() -> None:
    policy = policy_of(
        "async", PROMPTS, samples_per_prompt=SAMPLES, max_staleness=0, spare_prompts=2, stopped=Stopped.drop
    )
    generation = Generation(5)
    algorithm = learner(generation, policy)
    taken(algorithm, generation, policy, Progress(), 5, 5)
    learned = [prompt for step in algorithm.learned for prompt in step]
    assert len(set(learned)) == len(learned) == 5 * PROMPTS
    assert generation.stopped and max(learned) >= 5 * PROMPTS


def test_another_schedule_does_not_take_over_prompts_that_are_under_way() -> None:
    algorithm = learner(Generation(0), POLICIES["fifo"])
    with pytest.raises(HybridFlowError, match="has the state of another schedule"):
        schedules.get("sync")(algorithm, Generation(0)).restore({"scheduler": {}, "draws": []})


def test_any_schedule_takes_over_where_none_are() -> None:
    algorithm = learner(Generation(0), POLICIES["async, S = 0"])
    schedule, _ = after_a_step(Generation(0), POLICIES["async, S = 0"])
    schedules.get("sync")(algorithm, Generation(0)).restore(schedule.state())


def test_nor_does_one_with_steps_of_another_size() -> None:
    """It would look for prompts under way in other draws: some were lost, and others learned from twice."""
    policy = POLICIES["async, S = 2"]
    schedule, _ = after_a_step(Generation(0), policy)
    state = schedule.state()
    assert not AsyncSchedule.state_problem(state, AlgorithmConfig(prompts_per_step=PROMPTS))
    told = AsyncSchedule.state_problem(state, AlgorithmConfig(prompts_per_step=2 * PROMPTS))
    assert f"prompts_per_step={PROMPTS}, and {2 * PROMPTS} is given now" in told


@pytest.mark.parametrize(("schedule", "size", "told"), [("async", 2, ""), ("async", 3, "with 2"), ("sync", 2, "as it")])
def test_what_a_schedule_cannot_go_on_from_is_told_before_the_start(
    tmp_path: Path, schedule: str, size: int, told: str
) -> None:
    progress = Progress(steps=1, schedule={"scheduler": {}, "draws": [], "prompts_per_step": 2})
    (tmp_path / STATE).write_text(json.dumps(SavedState(progress, {}, {}).to_json()))
    config = Config(algorithm=AlgorithmConfig(prompts_per_step=size), trainer=TrainerConfig(schedule=schedule))
    with pytest.raises(CheckpointError, match=told) if told else nullcontext():
        check_schedule(tmp_path, config)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("trainer.schedule=sync", "trainer.max_staleness: 1 given, which trainer.schedule=sync does not heed"),
        ("trainer.sampler=fif", "no sampler is named 'fif'; did you mean 'fifo'"),
        ("trainer.spare_prompts=3", "spare_prompts = 3 end a step early, which goes with max_staleness = 0"),
        ("trainer.stopped=drop", "trainer.stopped: drop given, and no trainer.spare_prompts"),
    ],
)
def test_what_async_does_not_do_is_refused_before_the_start(override: str, told: str) -> None:
    pool = ("placement=rollout_pool", "algorithm=grpo", "trainer.schedule=async", "trainer.max_staleness=1")
    with pytest.raises(ConfigError, match=told):
        load("train", ["experiment=addition", *pool, override])


@pytest.mark.parametrize(
    "settings", [(), ("placement=rollout_pool", "trainer.schedule=async", "trainer.partial=false")]
)
def test_a_cache_that_no_rows_keep_is_refused_before_the_start(settings: tuple[str, ...]) -> None:
    overrides = ["experiment=addition", "algorithm=grpo", *settings, "rollout.keep_kv_cache=true"]
    with pytest.raises(ConfigError, match=r"rollout.keep_kv_cache: true given, and no rows go on with new weights"):
        load("train", overrides)
