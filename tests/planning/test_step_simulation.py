"""Steps as they are estimated: sums, orders and bounds that hold whatever the hardware."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.parallel.layout import Layout
from hybridflow.planning.arrangement import Arrangement, Seat
from hybridflow.planning.call_costs import Simulators
from hybridflow.planning.estimates import StepEstimate
from hybridflow.planning.flow_costs import FlowCosts
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import RunSpec, Work
from hybridflow.planning.simulated_run import SimulatedRun
from hybridflow.planning.step_simulation import estimate_step, lengths_of_steps, policy_of_spec
from hybridflow.scheduling import Stopped
from tests.planning.specs import build_flow, build_spec, colocated, rollout_apart, split

H100 = read_hardware("h100_80g_8x")
ALIKE = Lengths((400.0,))
SCHEDULES = ("sync", "one_step_off", "async", "stream")


def estimate(spec: RunSpec, where: Arrangement, draws: int = 2) -> StepEstimate:
    return estimate_step(spec, where, H100, draws=draws)


def test_on_one_pool_a_step_of_sync_is_the_sum_of_its_calls() -> None:
    spec = build_spec(responses=ALIKE)
    where = colocated(4)
    step = estimate(spec, where)
    known = Simulators(H100)
    models = spec.models
    calls = [known.call_s(call, models.get(call.role), where.seats[call.role].layout, spec).mean for call in spec.flow]
    sync = known.sync_s(models["actor"], where.seats["actor"].layout, None, spec).mean
    assert step.seconds.mean == pytest.approx(sum(calls) + sync)
    assert sum(phase.mean for phase in step.phases.values()) == pytest.approx(step.seconds.mean)
    assert step.idle == {"main": pytest.approx(0.0, abs=1e-9)}
    assert step.tokens == 64 * (150 + 400)
    assert (step.spans[0].method, step.spans[0].begin) == ("sync_weights", 0.0)
    assert step.spans[-1].end == pytest.approx(step.seconds.mean)


def test_a_driver_sends_calls_one_after_the_other_while_others_are_carried_out() -> None:
    spec = build_spec(responses=ALIKE)
    slow = replace(H100, overheads=replace(H100.overheads, dispatch=5e-3))
    for where in (colocated(4), split(2, 2)):
        quick, sent = (estimate_step(spec, where, hardware, draws=2) for hardware in (H100, slow))
        assert quick.seconds.mean + 3 * 5e-3 <= sent.seconds.mean <= quick.seconds.mean + len(spec.flow) * 5e-3
        assert {span.pool for span in sent.spans} == {*where.pools}
        assert sent.phases.keys() == quick.phases.keys()


def test_pools_work_at_once_on_what_does_not_wait_for_each_other() -> None:
    spec = build_spec(responses=ALIKE)
    step = estimate(spec, split(2, 2))
    by_name = {f"{span.role}.{span.method}": span for span in step.spans}
    reference, values = by_name["reference.compute_ref_log_prob"], by_name["critic.compute_values"]
    assert min(reference.end, values.end) > max(reference.begin, values.begin)
    assert sum(phase.mean for phase in step.phases.values()) > step.seconds.mean
    assert by_name["actor.compute_advantage"].begin >= max(span.end for span in (reference, values))


@settings(max_examples=8, deadline=None)
@given(schedule=st.sampled_from(SCHEDULES), trainers=st.integers(1, 4), generators=st.integers(1, 4))
def test_a_pool_does_one_thing_at_a_time_and_never_longer_than_the_step(
    schedule: str, trainers: int, generators: int
) -> None:
    where = rollout_apart(trainers, generators)
    step = estimate(build_spec(8, 2, schedule=schedule, critic=False), where)
    for pool in where.pools:
        spans = sorted((span for span in step.spans if span.pool == pool), key=lambda span: span.begin)
        assert all(after.begin >= before.end - 1e-9 for before, after in pairwise(spans))
        assert 0 <= step.idle[pool] < step.seconds.mean
        assert all(0 <= span.begin < span.end for span in spans)


@settings(max_examples=6, deadline=None)
@given(schedule=st.sampled_from(SCHEDULES), trainers=st.integers(1, 2), generators=st.integers(1, 3))
def test_twice_the_replicas_on_a_pool_are_not_slower(schedule: str, trainers: int, generators: int) -> None:
    """On one node: on two, a weight sync goes over a slower link."""
    spec = build_spec(16, 2, schedule=schedule, critic=False, responses=ALIKE)
    few, more = (
        estimate(spec, rollout_apart(trainers, count), draws=1).seconds.mean for count in (generators, 2 * generators)
    )
    assert more <= few * 1.001


def test_overlap_hides_the_shorter_of_generation_and_learning() -> None:
    where = rollout_apart(2, 2)
    by_schedule = {
        name: estimate(build_spec(32, 4, schedule=name, critic=False), where, draws=6).seconds.mean
        for name in SCHEDULES
    }
    assert by_schedule["sync"] > by_schedule["stream"] > by_schedule["async"]
    assert by_schedule["sync"] > by_schedule["one_step_off"] >= by_schedule["async"]


def test_one_step_off_is_the_longer_of_its_halves() -> None:
    spec = build_spec(responses=ALIKE, schedule="one_step_off", critic=False)
    step = estimate(spec, rollout_apart(2, 2))
    learning = sum(phase.mean for name, phase in step.phases.items() if name not in ("actor.generate_sequences",))
    generation = step.phases["actor.generate_sequences"].mean + step.phases["sync_weights"].mean
    scoring = step.phases["reference.compute_ref_log_prob"].mean + step.phases["reward.compute_reward"].mean
    assert max(learning, generation) <= step.seconds.mean <= max(learning, generation + scoring) * 1.01


def test_one_step_off_generates_on_while_a_pool_of_graders_is_at_the_rows_before() -> None:
    spec = build_spec(responses=ALIKE, schedule="one_step_off", critic=False)
    where = rollout_apart(2, 2)
    seats = {**where.seats, "reward": Seat("graders", Layout())}
    slow = replace(H100, overheads=replace(H100.overheads, grade=0.02))  # 1.3 s, as long as generation or so
    step = estimate_step(spec, Arrangement({**where.pools, "graders": 1}, seats), slow, draws=3)
    seconds = {name: phase.mean for name, phase in step.phases.items()}
    learning = seconds["actor.compute_advantage"] + seconds["actor.update_actor"]
    sampling = seconds["sync_weights"] + seconds["actor.generate_sequences"]
    grading = seconds["reward.compute_reward"]
    # Of two steps under way each goes through all of it in two steps' time; to wait for the grades would take longer.
    assert step.seconds.mean == pytest.approx(max((sampling + grading + learning) / 2, grading), rel=0.05)
    assert step.seconds.mean < sampling + grading


@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_lent_slots_generate_while_the_learner_waits(schedule: str) -> None:
    where = rollout_apart(2, 2)
    spec = build_spec(32, 4, schedule=schedule, critic=False)
    alone, lent = (estimate(spec, replace(where, lends=lends), draws=4) for lends in (False, True))
    assert lent.seconds.mean < alone.seconds.mean
    assert lent.phases["actor.generate_sequences"].mean > 0


def test_over_sampling_ends_a_step_without_its_slowest_prompts() -> None:
    """One response in forty is eight times as long: nearly every step of sync waits for one."""
    rare = Lengths((*[100.0] * 39, 800.0))
    where = rollout_apart(2, 2)
    waits = estimate(build_spec(16, 2, critic=False, responses=rare), where, draws=6)
    stops = build_spec(
        16, 2, schedule="async", critic=False, responses=rare, max_staleness=0, spare_prompts=4, stopped=Stopped.drop
    )
    assert estimate(stops, where, draws=6).seconds.mean < 0.7 * waits.seconds.mean


def test_a_policy_that_is_not_the_actor_has_its_own_seat_and_its_own_weights() -> None:
    spec = build_spec(critic=False)
    flow = tuple(replace(call, role="student") if call.role == "actor" else call for call in spec.flow)
    where = colocated(2)
    seats = {"student": where.seats["actor"], **{role: where.seats[role] for role in ("reference", "reward")}}
    student = replace(spec, flow=flow, models={"student": spec.models["actor"], "reference": spec.models["reference"]})
    found = estimate(student, replace(where, seats=seats))
    assert found.seconds.mean == pytest.approx(estimate(spec, where).seconds.mean)
    assert "student.update_actor" in found.phases


def test_a_run_without_generation_or_without_calls() -> None:
    spec = build_spec()
    update = replace(build_flow(64)[-1], rows=64, after=())
    taught = estimate(replace(spec, flow=(update,)), colocated(2))
    assert [*taught.phases] == ["actor.update_actor"]
    nothing = estimate(replace(spec, flow=()), colocated(2))
    assert (nothing.seconds.mean, nothing.spans, nothing.phases) == (0.0, (), {})


def test_stream_learns_from_each_part_once() -> None:
    spec = build_spec(16, 2, schedule="stream", critic=False, minibatches=4)
    where = rollout_apart(1, 1)
    policy = policy_of_spec(spec)
    costs = FlowCosts(spec, where, Simulators(H100), policy)
    jobs = costs.learning([[400.0, 400.0]] * 4)
    assert [job.method for job in jobs] == [
        "compute_ref_log_prob", "compute_reward", "compute_log_prob", "compute_advantage", "update_actor"
    ]  # fmt: skip
    outcome = SimulatedRun(policy, lengths_of_steps(spec, policy, 3, drawn=True), costs).finish()
    assert sum(span.method == "update_actor" for span in outcome.spans) == 3 * 4


def test_of_very_many_rows_each_stands_for_several_and_a_step_takes_as_long() -> None:
    spec = build_spec(512, 4, schedule="async", critic=False, responses=ALIKE)
    assert policy_of_spec(spec).prompts_per_step == 64
    step = estimate(spec, rollout_apart(4, 4))
    tokens = sum(call.rows for call in spec.flow if call.work is Work.train)
    assert tokens == 2048
    few = estimate(build_spec(128, 4, schedule="async", critic=False, responses=ALIKE), rollout_apart(1, 1))
    assert step.seconds.mean == pytest.approx(
        few.seconds.mean, rel=0.1
    )  # a fourth of the rows on a fourth of the ranks


def test_drawn_lengths_spread_and_expected_ones_do_not() -> None:
    spec = build_spec(critic=False)
    drawn, expected = (estimate(spec, colocated(2), draws=draws).seconds for draws in (8, 0))
    assert drawn.low < drawn.mean < drawn.high
    assert expected.low == expected.mean == expected.high == pytest.approx(drawn.mean, rel=0.05)


def test_pools_on_the_cores_of_one_machine_do_not_do_more_work_than_these() -> None:
    spec = build_spec(16, 2, responses=ALIKE)
    machine = replace(read_hardware("cpu"), cores=1)
    alone = estimate_step(spec, colocated(1), machine, draws=1)
    apart = estimate_step(spec, split(1, 1), machine, draws=1)
    # Two processes have no more than one: but for calls and layers, what there is to do is what it was.
    assert apart.seconds.mean == pytest.approx(alone.seconds.mean, rel=0.05)
    assert estimate_step(spec, split(1, 1), replace(machine, cores=2), draws=1).seconds.mean < apart.seconds.mean
