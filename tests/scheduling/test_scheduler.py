"""The scheduler in random runs: finish times, failures, resumes from any state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.scheduling import (
    SCHEDULES,
    Admit,
    Learned,
    Resumed,
    RowFailed,
    RowFinished,
    SchedulePolicy,
    Scheduler,
    Started,
    Stopped,
    Sync,
    Take,
    WeightsPublished,
    policy_of,
    samplers,
)
from tests.scheduling.random_runs import RandomRun

INTERLEAVINGS = 5
seeds = st.integers(0, 2**32 - 1)


@st.composite
def policies(draw: st.DrawFn) -> SchedulePolicy:
    """Any schedule that the settings allow."""
    prompts = draw(st.integers(1, 5))
    settings: dict[str, Any] = {"samples_per_prompt": draw(st.integers(1, 2))}
    if draw(st.integers(0, 3)) == 0:
        settings |= {"spare_prompts": draw(st.integers(1, 4)), "stopped": draw(st.sampled_from(Stopped))}
        return SchedulePolicy(prompts, **settings)
    whole_batches = draw(st.booleans())
    return SchedulePolicy(
        prompts,
        **settings,
        slots=None if whole_batches else draw(st.none() | st.integers(1, 12)),
        max_staleness=draw(st.integers(0, 3)),
        partial=draw(st.booleans()),
        minibatches=draw(st.integers(1, prompts)),
        whole_batches=whole_batches,
        sampler=draw(st.sampled_from([*samplers])),
        window=draw(st.integers(1, 3)),
    )


def check_a_run(policy: SchedulePolicy, prompts: int, seed: int, faults: float) -> None:
    """Nothing is beyond the bound, lost, doubled or thrown away, and the run ends: `RandomRun` asserts it."""
    RandomRun(policy, prompts, seed, faults).finish()


@given(policies(), st.integers(1, 24), seeds, st.sampled_from([0.0, 0.02, 0.2]))
@settings(max_examples=150)
def test_no_run_breaks_a_promise(policy: SchedulePolicy, prompts: int, seed: int, faults: float) -> None:
    check_a_run(policy, prompts, seed, faults)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@given(policies(), st.integers(1, 24), seeds, st.sampled_from([0.0, 0.02, 0.2]))
@settings(max_examples=100_000 // INTERLEAVINGS)
def test_no_run_of_a_hundred_thousand_breaks_a_promise(
    policy: SchedulePolicy, prompts: int, seed: int, faults: float
) -> None:
    """Settings are drawn in half of the time that a run takes; so several orders of events are tried with each."""
    for more in range(INTERLEAVINGS):
        check_a_run(policy, prompts, seed + more, faults)


@given(
    st.integers(1, 5), st.integers(1, 2), st.integers(1, 24), seeds, st.booleans(), st.sampled_from([*samplers]),
    st.sampled_from([0.0, 0.05]),
)  # fmt: skip
def test_async_without_staleness_decides_as_sync_does(
    prompts_per_step: int, samples: int, prompts: int, seed: int, partial: bool, sampler: str, faults: float
) -> None:
    changes = {"samples_per_prompt": samples}
    sync = RandomRun(policy_of("sync", prompts_per_step, **changes), prompts, seed, faults)
    changes |= {"max_staleness": 0, "partial": partial, "sampler": sampler}
    asynchronous = RandomRun(policy_of("async", prompts_per_step, **changes), prompts, seed, faults)
    sync.finish()
    asynchronous.finish()
    assert asynchronous.decisions == sync.decisions


@given(st.integers(1, 5), st.integers(0, 3), st.booleans(), st.integers(1, 24), seeds)
def test_fifo_learns_in_the_steps_of_sync_whatever_finishes_first(
    prompts_per_step: int, max_staleness: int, partial: bool, prompts: int, seed: int
) -> None:
    changes = {"max_staleness": max_staleness, "partial": partial, "sampler": "fifo"}
    books = RandomRun(policy_of("async", prompts_per_step, **changes), prompts, seed, faults=0.05).finish()
    order = [*range(prompts)]
    assert books.trained == [order[at : at + prompts_per_step] for at in range(0, prompts, prompts_per_step)]


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 30), seeds)
def test_one_step_off_generates_one_step_while_it_learns_from_another(
    prompts_per_step: int, samples: int, prompts: int, seed: int
) -> None:
    run = RandomRun(policy_of("one_step_off", prompts_per_step, samples_per_prompt=samples), prompts, seed)
    run.finish()
    steps = [decision.step for decision in run.decisions if isinstance(decision, Take)]
    admitted = [decision.prompt // prompts_per_step for decision in run.decisions if isinstance(decision, Admit)]
    order = [
        ("learn", decision.step) if isinstance(decision, Take) else ("generate", decision.prompt // prompts_per_step)
        for decision in run.decisions
        if isinstance(decision, Take) or (isinstance(decision, Admit) and decision.prompt % prompts_per_step == 0)
    ]
    assert steps == sorted({*admitted})
    expected = [("generate", 0)]
    for step in steps:
        expected += [("learn", step), ("generate", step + 1)]
    assert order == expected[:-1]


@given(st.integers(1, 5), st.integers(1, 4), st.sampled_from(Stopped), st.integers(1, 30), seeds)
def test_over_sampling_says_exactly_what_it_moves_and_drops(
    prompts_per_step: int, spare: int, stopped: Stopped, prompts: int, seed: int
) -> None:
    changes = {"spare_prompts": spare, "stopped": stopped}
    books = RandomRun(policy_of("sync", prompts_per_step, **changes), prompts, seed).finish()
    assert bool(books.dropped) <= (stopped is Stopped.drop)
    full, last = books.trained[:-1], books.trained[-1]
    assert all(len(step) == prompts_per_step for step in full) and len(last) <= prompts_per_step


@given(st.integers(1, 5), st.integers(1, 4), st.sampled_from([Stopped.next_step, Stopped.long_round]), seeds)
def test_plain_sync_in_the_order_of_a_tail_batched_run_learns_the_same_in_the_same_steps(
    prompts_per_step: int, spare: int, stopped: Stopped, seed: int
) -> None:
    """A row depends on its prompt and on the version that sampled it: both agree, so the rows do."""
    changes = {"spare_prompts": spare, "stopped": stopped}
    batched = RandomRun(policy_of("sync", prompts_per_step, **changes), 24, seed)
    books = batched.finish()
    order = [prompt for step in books.trained for prompt in step]
    plain = RandomRun(policy_of("sync", prompts_per_step), 24, seed + 1)
    plain_books = plain.finish()
    assert [[order[place] for place in step] for step in plain_books.trained] == books.trained
    assert sorted(order) == [*range(24)]


def test_a_prompt_is_stopped_once_at_most() -> None:
    """The slowest prompt is in the second step, which waits for it."""
    scheduler = Scheduler(SchedulePolicy(2, spare_prompts=1), 6)
    scheduler.take_in(Started())
    admitted = scheduler.take_in(WeightsPublished(0))
    assert [decision.prompt for decision in admitted if isinstance(decision, Admit)] == [0, 1, 2]
    assert scheduler.take_in(RowFinished(1, 0, 0)) == ()
    stop, take = scheduler.take_in(RowFinished(2, 0, 0))
    assert (stop.prompts, take.prompts) == ((0,), (1, 2))  # type: ignore[union-attr]
    assert scheduler.take_in(RowFinished(0, 0, 0)) == ()  # it had been stopped
    assert scheduler.take_in(Learned()) == (Sync(1, in_flight=False),)
    again = scheduler.take_in(WeightsPublished(1))
    assert again == (Admit(0, ((0, 1),)), Admit(3, ((0, 0),)), Admit(4, ((0, 0),)))
    assert scheduler.take_in(RowFinished(3, 0, 0))[0].prompts == (4,)  # type: ignore[union-attr]
    assert scheduler.take_in(RowFinished(0, 0, 1))[0] == Take((0, 3), 1, last=True)


def test_what_was_lost_is_generated_again_and_what_has_finished_is_not() -> None:
    scheduler = Scheduler(SchedulePolicy(1, samples_per_prompt=2), 1)
    scheduler.take_in(Started())
    scheduler.take_in(WeightsPublished(0))
    scheduler.take_in(RowFinished(0, 1, 0))
    assert scheduler.take_in(RowFailed(0, 0, 0)) == (Admit(0, ((0, 1),)),)
    assert scheduler.take_in(RowFinished(0, 0, 0)) == ()  # of the attempt that failed
    assert "0 of 1 prompts have finished" in scheduler.waits_for()
    assert scheduler.take_in(RowFinished(0, 0, 1)) == (Take((0,), 0, last=True),)


def test_after_a_resume_finished_rows_whose_weights_are_old_enough_are_learned_from() -> None:
    """The counters of AReaL's staleness manager began anew after a resume, so that it admitted without bound
    (areal-project/AReaL#1388); NeMo-RL's skipped the prompts that were in flight (NVIDIA-NeMo/RL#3599)."""
    scheduler = Scheduler(policy_of("async", 2, max_staleness=1), 8)
    scheduler.take_in(Started())
    scheduler.take_in(WeightsPublished(0))
    scheduler.take_in(RowFinished(1, 0, 0))
    resumed = Scheduler(policy_of("async", 2, max_staleness=1), 8)
    resumed.restore(scheduler.state())
    assert resumed.take_in(Resumed()) == (Sync(0, in_flight=False),)
    admitted = resumed.take_in(WeightsPublished(0))
    assert admitted == tuple(Admit(prompt, ((0, 1),)) for prompt in (0, 2, 3))
    assert resumed.in_flight == 4


@pytest.mark.parametrize(("sampler", "taken"), [("fifo", None), ("windowed_fifo", (2, 3)), ("oldest_weights", (2, 3))])
def test_a_sampler_says_whether_what_is_finished_may_pass_what_is_not(sampler: str, taken: tuple[int, int]) -> None:
    scheduler = Scheduler(policy_of("async", 2, sampler=sampler), 8)
    scheduler.take_in(Started())
    scheduler.take_in(WeightsPublished(0))
    scheduler.take_in(RowFinished(3, 0, 0))
    decisions = scheduler.take_in(RowFinished(2, 0, 0))
    assert [decision.prompts for decision in decisions if isinstance(decision, Take)] == ([taken] if taken else [])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_named_schedule_ends(name: str) -> None:
    books = RandomRun(policy_of(name, 4, samples_per_prompt=2), 26, seed=3).finish()
    assert [len(step) for step in books.trained] == [4] * 6 + [2]
