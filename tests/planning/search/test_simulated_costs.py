"""What the search asks is what the simulators and the account of memory say; with these too, nothing is cheaper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from hybridflow.config.schema import DType, Recompute, Resharding
from hybridflow.errors import HybridFlowError
from hybridflow.models import ModelShape
from hybridflow.parallel.layout import Layout
from hybridflow.planning.arrangement import Arrangement, Seat
from hybridflow.planning.estimates import SlotMemory
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import SYNC, FlowCall, RoleModel, RunSpec
from hybridflow.planning.search.device_mapping import DeviceMapping, map_devices, pool_sizes
from hybridflow.planning.search.exhaustive import cheapest
from hybridflow.planning.search.placement_search import Candidate, PlacementSearch
from hybridflow.planning.search.simulated_costs import SimulatedCosts, by_plan
from hybridflow.planning.search.step_costs import Costs, Plan
from hybridflow.planning.slot_memory import slot_memory
from hybridflow.planning.step_simulation import estimate_step
from tests.planning.search.synthetic import PPO

SMALL = ModelShape("llama", 4, 2048, 5632, 16, 4, 128, 32000, False, False, 1e-5, 1e4, 4096)
ROWS = 64
APART = [(role, Candidate((("actor", "critic", "reference"), ("rollout",)))) for role in ("actor", "rollout")]


def spec_of_ppo(layers: int = 4, critic_layers: int = 4) -> RunSpec:
    """PPO of an actor, a critic and a reference, and a reward by graders."""
    shape = replace(SMALL, layers=layers)
    model = RoleModel(shape, DType.bfloat16, True, sharded_optimizer=True, max_tokens_per_rank=4096)
    flow = tuple(replace(call, rows=call.rows * ROWS // 8) for call in PPO)
    critic = replace(model, shape=replace(SMALL, layers=critic_layers))
    models = {"actor": model, "critic": critic, "reference": replace(model, trains=False)}
    lengths = Lengths((100.0, 300.0, 900.0))
    return RunSpec(flow, models, ROWS, 1, Lengths((128.0,)), lengths, 1024, "sync", {}, 256, 0.0, 0.5)


def hardware(gib: float, per_node: int = 4) -> Hardware:
    return replace(read_hardware("a100_80g_8x"), memory_bytes=gib * 2**30, devices_per_node=per_node)


def calls_of(spec: RunSpec, role: str) -> list[FlowCall]:
    return [call for call in spec.flow if call.role == role]


def test_plans_cost_what_the_simulators_say() -> None:
    spec, device = spec_of_ppo(), hardware(20)
    costs = SimulatedCosts(spec, device)
    for role in spec.models:
        for plan in costs.plans(role, calls_of(spec, role), 8)[::7]:
            for call in calls_of(spec, role):
                own = replace(spec, memory_fraction=plan.memory_fraction or spec.memory_fraction)
                said = costs.simulators.call_s(call, by_plan(spec.models[role], plan), plan.layout, own)
                assert costs.call_s(role, call, plan) == pytest.approx(said.mean)


@pytest.mark.parametrize("method", [Resharding.hybrid, Resharding.hybrid_v])
def test_a_table_is_what_its_plans_cost_one_by_one(method: Resharding) -> None:
    spec = replace(spec_of_ppo(), resharding=method)
    for gib in (3, 20):
        costs = SimulatedCosts(spec, hardware(gib), fractions=(0.3,))
        search = PlacementSearch(spec.flow, tuple(spec.models), costs, 8, pool_sizes(8, 4))
        for role, candidate in [*((role, Candidate((tuple(spec.models),))) for role in spec.models), *APART]:
            calls = search.calls_of(role, candidate)
            table, every = (of(role, calls, 8, 8) for of in (costs.table, partial(Costs.table, costs)))
            assert table.numbers == pytest.approx(every.numbers)
            rows = range(len(every.numbers))
            assert [table.plan(row) for row in rows] == [every.plan(row) for row in rows]


def test_an_actor_whose_weights_go_to_other_devices_has_buckets_for_them() -> None:
    spec = spec_of_ppo()
    costs = SimulatedCosts(spec, hardware(20))
    plan = Plan(Layout(2, 1, 2))
    trains = [call for call in calls_of(spec, "actor") if call.method != "generate_sequences"]
    seats = {"actor": Seat("a", plan.layout), "rollout": Seat("b", Layout(2, 1, 2)), "critic": Seat("a", plan.layout)}
    found = slot_memory(spec, Arrangement({"a": 4, "b": 4}, seats | {"reference": seats["critic"]}), hardware(20))
    buckets = found[0].phases[SYNC]["buckets"]
    assert buckets > 0
    only_syncs = replace(spec, flow=spec.flow[:1])
    assert SimulatedCosts(only_syncs, hardware(20)).need("actor", (), plan).peak >= buckets
    assert costs.need("actor", trains, plan).peak >= buckets


def test_plans_are_all_that_divide() -> None:
    spec = spec_of_ppo()
    plans = SimulatedCosts(spec, hardware(20), prunes=False).plans("actor", calls_of(spec, "actor"), 8)
    sizes = {(plan.layout.tensor, plan.layout.pipeline, plan.layout.data) for plan in plans}
    assert sizes == {(t, p, 8 // t // p) for t in (1, 2, 4) for p in (1, 2, 4) if t * p <= 8}
    assert {plan.recompute for plan in plans} == {*Recompute}
    assert {plan.layout.generation for plan in plans if plan.layout.tensor == 2 and plan.layout.pipeline == 1} == {
        (1, 1),
        (2, 1),
    }
    assert len({*plans}) == len(plans)


def mapped(gib: float, devices: int, *schedules: str) -> DeviceMapping:
    allowed: dict[str, dict[str, object]] = {name: {} for name in schedules or ("sync",)}
    return map_devices(spec_of_ppo(), hardware(gib), devices, schedules=allowed, simulated=2, bound_s=60.0)


def peaks(memory: tuple[SlotMemory, ...]) -> Iterator[tuple[float, float]]:
    return ((slot.peak, slot.device) for slot in memory)


def test_every_answer_fits_and_is_simulated_and_the_same_again() -> None:
    gib, devices = 3, 8
    found = mapped(gib, devices, "sync", "one_step_off")
    assert found.gap < 1e-6 and found.bound <= found.found[0].seconds
    for run in found.runs:
        assert sum(run.arrangement.pools.values()) <= devices
        assert all(peak <= device for peak, device in peaks(slot_memory(run.spec, run.arrangement, hardware(gib))))
        again = estimate_step(run.spec, run.arrangement, hardware(gib))
        assert again.seconds.mean == pytest.approx(run.step.seconds.mean)
    assert [run.step.seconds.mean for run in found.runs] == sorted(run.step.seconds.mean for run in found.runs)
    other = mapped(gib, devices, "sync", "one_step_off")
    assert [run.found for run in other.runs] == [run.found for run in found.runs]


def test_less_memory_leaves_less_and_says_what_is_needed() -> None:
    small, large = mapped(6, 4), mapped(40, 4)
    assert len(small.unfit) > len(large.unfit) == 0
    assert large.found[0].seconds <= small.found[0].seconds
    assert all("needed" in unfit.why for unfit in small.unfit)
    with pytest.raises(HybridFlowError, match="nothing fits 4 devices of a100_80g_8x: actor: more memory is needed"):
        mapped(1, 4)


@pytest.mark.parametrize(("gib", "critic_layers"), [(6, 4), (30, 2)])
def test_nothing_is_cheaper_by_the_simulators(gib: float, critic_layers: int) -> None:
    spec = spec_of_ppo(critic_layers=critic_layers)
    made = [
        SimulatedCosts(spec, hardware(gib), budgets=(1.0,), fractions=(0.3,), prunes=prunes)  # few, to look at all
        for prunes in (True, False)
    ]
    search, every = (PlacementSearch(spec.flow, tuple(spec.models), costs, 4, pool_sizes(4, 4)) for costs in made)
    for candidate in search.candidates(overlaps=True):
        found, truth = search.best(candidate), cheapest(every, candidate)
        assert (found is None) == (truth is None)
        if found is not None and truth is not None:
            assert found.seconds == pytest.approx(truth.seconds, rel=1e-12)


def test_a_run_that_samples_nothing_is_placed_too() -> None:
    """On processes that share cores, as of supervised training."""
    spec = spec_of_ppo()
    alone = replace(spec, flow=(replace(PPO[7], after=()),), models={"actor": spec.models["actor"]})
    found = map_devices(alone, replace(read_hardware("cpu"), memory_bytes=64 * 2.0**30), 2)
    assert [run.found.candidate.sets for run in found.runs] == [(("actor",),)]
    assert found.best.step.seconds.mean > 0 and found.best.arrangement.generator == "actor"


def test_pools_are_parts_of_a_node_or_whole_nodes() -> None:
    assert pool_sizes(6, 8) == [1, 2, 3, 4, 5, 6]
    assert pool_sizes(32, 8) == [1, 2, 4, 8, 16, 24, 32]


def test_a_sync_is_that_of_the_settings_method() -> None:
    plan = Plan(Layout(4, 1, 2, generation=(1, 1)))
    spec = spec_of_ppo()
    hybrid, whole = (
        SimulatedCosts(replace(spec, resharding=method), hardware(20)).sync_s(plan, 0)
        for method in (Resharding.hybrid, Resharding.hybrid_v)
    )
    generation = replace(plan.layout, generation=(4, 1))  # nothing moves where each rank has what it generates with
    kept, gathered = (
        SimulatedCosts(replace(spec, resharding=method), hardware(20)).sync_s(Plan(generation), 0)
        for method in (Resharding.hybrid, Resharding.hybrid_v)
    )
    assert hybrid == pytest.approx(whole) and kept < gathered
