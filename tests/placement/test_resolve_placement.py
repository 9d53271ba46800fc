"""Who runs where, as the settings say; and what keeps them from it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from hybridflow.config import Config, compose, sections
from hybridflow.config.model_roles import with_models
from hybridflow.config.schema import ActorConfig, Device, TrainedRoleConfig
from hybridflow.errors import ConfigError
from hybridflow.parallel.layout import Layout
from hybridflow.placement import Engines, Placement, engines_of, problems, resolve, settings_of_worker, started_roles
from hybridflow.placement.node_bundles import Bundles
from hybridflow.roles import (
    ActorRole,
    CriticRole,
    GradedModelRewardRole,
    ModelRewardRole,
    RewardRole,
    Role,
    roles,
)
from hybridflow.roles.rollout import LendingActorRole, RolloutRole, TrainingActorRole
from hybridflow.trainer.build import with_absolute_paths

PPO = ("actor", "critic", "reference", "reward")


@cache
def load(*overrides: str) -> Config:
    return compose.compose("train", ["experiment=addition", *overrides]).to_config()


def place(*overrides: str, called: Sequence[str] = PPO, gpus: int | None = 0) -> Placement:
    return resolve(load(*overrides), called, gpus=gpus)


def test_colocated_roles_share_the_first_pool() -> None:
    placed = place()
    assert [(pool.name, pool.slots, pool.device, pool.light) for pool in placed.pools] == [
        ("main", 2, Device.cpu, False)
    ]
    assert [(role.name, role.pool, role.worker, role.engines) for role in placed.roles] == [
        ("actor", "main", "actor", Engines("megatron", "vllm")),
        ("critic", "main", "critic", Engines("megatron")),
        ("reference", "main", "reference", Engines("megatron")),
        ("reward", "main", "reward", Engines()),
    ]
    assert placed.role("actor").layout == Layout(tensor=2, generation=(1, 1))
    assert placed.role("critic").layout == Layout(tensor=2)
    assert placed.role("reward").layout == Layout(data=2)
    assert placed.role("actor").interface is ActorRole
    assert not placed.is_disaggregated and placed.slots == 2


def test_a_split_placement_starts_the_pools_that_roles_are_on() -> None:
    placed = place("placement=split", "+placement.pools.spare=7")
    assert [pool.name for pool in placed.pools] == ["policy", "judges"]
    assert {role.name: role.pool for role in placed.roles} == {
        "actor": "policy",
        "critic": "judges",
        "reference": "policy",
        "reward": "judges",
    }
    assert placed.pool_of("critic").slots == 2 and placed.role("critic").interface is CriticRole


def test_generation_on_a_pool_of_its_own_is_a_role() -> None:
    placed = place("placement=rollout_pool")
    assert placed.is_disaggregated
    actor, rollout = placed.role("actor"), placed.role("rollout")
    assert (actor.interface, actor.worker) == (TrainingActorRole, "training_actor")
    assert (rollout.interface, rollout.worker) == (RolloutRole, "rollout")
    assert actor.engines == rollout.engines == Engines("megatron", "vllm")
    assert actor.layout == Layout(tensor=2) and rollout.layout == Layout()
    assert [role.name for role in placed.roles] == [*PPO, "rollout"]


def test_an_actor_that_lends_its_slots_has_both_views_of_its_layout() -> None:
    placed = place("placement=rollout_pool", "placement.lend_idle_slots=true")
    assert placed.is_disaggregated and placed.lends
    actor = placed.role("actor")
    assert (actor.interface, actor.worker) == (LendingActorRole, "lending_actor")
    assert actor.layout == Layout(tensor=2, generation=(1, 1)) and actor.layout.replicas == 2
    assert not place("placement=rollout_pool").lends


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((), "placement.lend_idle_slots: true given, but generation has no pool of its own"),
        (
            ("placement=rollout_pool", "placement.pools.rollout=3", "rollout.parallel.tensor=3"),
            "rollout.parallel.tensor: 3 does not divide actor.parallel.tensor = 2",
        ),
    ],
)
def test_slots_that_cannot_be_lent_are_told(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        place(*overrides, "placement.lend_idle_slots=true")


def test_a_pool_that_the_actor_is_on_is_no_pool_of_generations_own() -> None:
    assert not place("+placement.roles.rollout=main").is_disaggregated


def test_an_actor_worker_of_the_users_stays_when_generation_is_apart() -> None:
    assert place("placement=rollout_pool", "actor.worker=mine").role("actor").worker == "mine"


def test_a_model_that_rewards_needs_a_grader_beside_it() -> None:
    settings = ("experiment=addition_model_reward", "reward.model.path=scores")
    placed = place(*settings)
    assert placed.role("reward").interface is ModelRewardRole and placed.role("reward").worker == "model"
    among = place(*settings, "reward.graders={exact: 1.0, reward_model: 0.5}").role("reward")
    assert (among.interface, among.worker) == (GradedModelRewardRole, "graded_model")
    grader = placed.role("grader")
    assert (grader.interface, grader.worker, grader.layout) == (RewardRole, "reward", Layout(data=2))
    assert [role.name for role in place(called=("actor",)).roles] == ["actor", "grader"]


def test_the_grader_is_where_the_reward_is() -> None:
    placed = place("placement=split", called=("actor",))
    assert placed.pool_of("grader").name == "judges"


def test_a_pool_of_graders_alone_is_light_and_takes_no_gpu() -> None:
    placed = place("+placement.pools.graders=3", "+placement.roles.reward=graders", gpus=2)
    assert [(pool.name, pool.device, pool.light) for pool in placed.pools] == [
        ("main", Device.gpu, False),
        ("graders", Device.cpu, True),
    ]


@pytest.mark.parametrize(
    ("setting", "gpus", "device"),
    [
        ("auto", 0, Device.cpu),
        ("auto", 2, Device.gpu),
        ("auto", None, Device.auto),
        ("cpu", 2, Device.cpu),
        ("gpu", 2, Device.gpu),
        ("gpu", None, Device.gpu),
    ],
)
def test_the_device_of_a_slot(setting: str, gpus: int | None, device: Device) -> None:
    (pool,) = place(f"placement.device={setting}", gpus=gpus).pools
    assert pool.device is device


@pytest.mark.parametrize(
    ("overrides", "gpus", "problem"),
    [
        ((), 1, "placement.pools.main: 2 slots for models, each of which takes a GPU, but there is 1; give fewer"),
        (
            ("placement=rollout_pool",),
            2,
            "placement.pools: 3 slots for models (train 2, rollout 1), each of which takes a GPU, but there are 2;",
        ),
        (("placement.device=gpu",), 0, "placement.device: gpu given, but there is no GPU"),
        (("placement.device=gpu",), 1, "placement.pools.main: 2 slots for models"),
    ],
)
def test_more_slots_than_gpus_is_an_error(overrides: Sequence[str], gpus: int, problem: str) -> None:
    (found,) = problems(load(*overrides), PPO, gpus)
    assert found.startswith(problem)
    with pytest.raises(ConfigError, match="placement"):
        place(*overrides, gpus=gpus)


@pytest.mark.parametrize(
    ("overrides", "gpus"),
    [
        ((), 2),
        ((), 0),
        ((), None),
        (("placement.device=cpu",), 1),
        (("placement=split",), 4),
        (("+placement.pools.graders=9", "+placement.roles.reward=graders"), 2),
    ],
)
def test_as_many_slots_as_gpus_or_none_of_them_is_right(overrides: Sequence[str], gpus: int | None) -> None:
    assert problems(load(*overrides), PPO, gpus) == []


def test_problems_come_all_at_once() -> None:
    found = problems(load("placement.pools.main=3", "rollout.parallel.pipeline=2"), PPO, gpus=1)
    keys = ["actor.parallel", "rollout.parallel.pipeline", "placement.pools.main"]
    assert [line.partition(":")[0] for line in found] == keys


def test_each_role_stands_alone() -> None:
    placed = place("placement=standalone")
    assert {role.name: role.pool for role in placed.roles} == {role: role for role in PPO}
    assert [(pool.name, pool.slots, pool.light) for pool in placed.pools] == [
        ("actor", 2, False), ("critic", 2, False), ("reference", 2, False), ("reward", 2, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "has", "slots"),
    [
        (("placement.pools.main=auto",), {"gpus": 0, "cpus": 6}, {"main": 6}),
        (("placement.pools.main=auto",), {"gpus": 4, "cpus": 32}, {"main": 4}),
        (("placement.pools.main=auto", "placement.device=cpu"), {"gpus": 4, "cpus": 32}, {"main": 32}),
        (("placement=rollout_pool", "placement.pools.train=auto"), {"gpus": 0, "cpus": 5}, {"train": 4, "rollout": 1}),
        (("placement=rollout_pool", "placement.pools.rollout=auto"), {"gpus": 8}, {"train": 2, "rollout": 6}),
        # A light pool takes no GPU from one that is given the rest, and has the cores that are left itself.
        (
            ("placement.pools.main=auto", "placement.pools.graders=3", "placement.roles.reward=graders"),
            {"gpus": 4, "cpus": 8}, {"main": 4, "graders": 3},
        ),
        (
            ("placement.pools.main=4", "placement.pools.graders=auto", "placement.roles.reward=graders"),
            {"gpus": 4, "cpus": 8}, {"main": 4, "graders": 4},
        ),
        # Pools that nobody is on take nothing.
        (("placement.pools.main=auto", "placement.pools.spare=3"), {"gpus": 4}, {"main": 4}),
        # Nobody knows yet what a cluster has that will be joined.
        (("placement.pools.main=auto", "actor.parallel.pipeline=3"), {"gpus": None}, {"main": 6}),
        (("placement.pools.main={nodes: 2, slots: 4}", "ray.address=auto"), {"gpus": None}, {"main": 8}),
    ],
)  # fmt: skip
def test_a_pool_may_have_all_that_others_leave(
    overrides: Sequence[str], has: dict[str, int | None], slots: dict[str, int]
) -> None:
    assert {pool.name: pool.slots for pool in resolve(load(*overrides), PPO, **has).pools} == slots  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ("placement=rollout_pool", "placement.pools.rollout=auto", "placement.pools.train=4"),
            "placement.pools.rollout: auto given, but other pools take all",
        ),
        (
            ("placement.pools.main=auto", "actor.parallel.tensor=3"),
            "actor.parallel: tensor 3 x pipeline 1 = 3 ranks do",
        ),
        (("placement.pools.main={nodes: 2, slots: 2}",), "placement.pools.main.nodes: 2 given, but ray.address=local"),
        (
            ("placement.pools.main={nodes: 2, slots: 3}", "ray.address=auto"),
            "actor.parallel.tensor: a tensor group of 2 ranks stays inside of a node, and pool main has 3 sl",
        ),
    ],
)
def test_sizes_that_cannot_be(overrides: Sequence[str], problem: str) -> None:
    found = problems(load(*overrides), PPO, gpus=0, cpus=4)
    assert found[0].startswith(problem) and len({line.partition(":")[0] for line in found}) == len(found)


def test_what_is_together_and_over_how_many_nodes_is_said_of_a_pool() -> None:
    (pool,) = place("placement.pools.main={nodes: 2, slots: 4}", "ray.address=auto", gpus=None).pools
    assert (pool.slots, pool.nodes, pool.together, pool.bundles) == (8, 2, 2, Bundles(2, 4, apart=True))
    train, rollout = place("placement=rollout_pool", "rollout.parallel.tensor=1").pools
    assert (train.together, rollout.together) == (2, 1) and train.bundles == Bundles(1, 2)
    (light,) = place("placement=standalone", called=("reward",)).pools
    assert light.bundles == Bundles(2)


def test_a_placement_is_a_value() -> None:
    assert place() == place() and hash(place()) == hash(place())
    assert place() != place("placement=split")


def test_a_role_that_is_not_placed_is_named() -> None:
    with pytest.raises(KeyError, match="no role 'cost' is placed; there is actor, critic, reference, reward"):
        place().role("cost")


def test_the_updates_of_a_role_are_those_that_the_run_plans() -> None:
    placed = resolve(load(), PPO, updates={"actor": 7, "critic": 9})
    assert {role.name: role.updates for role in placed.roles} == {"actor": 7, "critic": 9, "reference": 1, "reward": 1}


@pytest.mark.parametrize("placement", ["colocated", "split", "rollout_pool"])
def test_checks_and_the_placement_agree_on_where_generation_is(placement: str) -> None:
    placed = place(f"placement={placement}")
    assert [role.name for role in placed.roles] == list(started_roles(load(f"placement={placement}"), PPO))
    assert placed.is_disaggregated == ("rollout" in started_roles(load(f"placement={placement}"), PPO))


def test_generation_has_no_pool_of_its_own_where_no_actor_is() -> None:
    assert not place("placement=rollout_pool", called=("critic",)).is_disaggregated


@dataclass
class TeacherSettings(TrainedRoleConfig):
    worker: str = "teacher"


class Teacher(Role):
    """A user's role with a model."""


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Load settings with a user's role whose section is one of a model."""
    monkeypatch.setattr(sections, "_added", {})
    monkeypatch.setattr(roles, "_components", dict(roles.registered))
    roles.register("teacher", settings=TeacherSettings)(Teacher)

    def loaded(*overrides: str) -> Config:
        return compose.compose("train", ["experiment=addition", "teacher.model.path=here", *overrides]).to_config()

    return loaded


def test_a_users_role_with_a_model_is_placed_as_ours_are(teacher: Callable[..., Config]) -> None:
    called = (*PPO, "teacher")
    config = teacher("teacher.parallel.tensor=2", "teacher.engine=mine", "teacher.worker=other")
    spec = resolve(config, called, gpus=0).role("teacher")
    assert (spec.layout, spec.engines, spec.worker) == (Layout(tensor=2), Engines("mine"), "other")
    assert spec.interface is Teacher
    (found,) = problems(teacher("teacher.parallel.tensor=3"), called, gpus=0)
    assert found.startswith("teacher.parallel: tensor 3 x pipeline 1 = 3 ranks do not divide the 2 slots of pool main")


def test_a_users_model_is_one_of_the_runs(teacher: Callable[..., Config]) -> None:
    config: Any = teacher()
    assert with_models(config, (*PPO, "teacher")) == ["actor", "critic", "reference", "teacher"]
    assert with_models(config, PPO) == ["actor", "critic", "reference"]
    found: Any = with_absolute_paths(config)
    assert found.teacher.model.path == os.path.abspath("here") and config.teacher.model.path == "here"


def test_two_policies_generate_in_one_process_on_cpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(roles._components, "checker", type("Checker", (ActorRole,), {}))
    config = Config()
    config.checker = ActorConfig()  # type: ignore[attr-defined]
    config.placement.pools = {"main": 1}
    called = ("actor", "checker", "reward")
    assert problems(config, called, gpus=0) == []
    (told,) = problems(config, called, gpus=2)
    assert told.startswith("placement.roles.checker: checker generates on pool main, as actor does")
    config.placement.pools = {"main": 1, "checker": 1}
    config.placement.roles = {"checker": "checker"}
    assert problems(config, called, gpus=2) == []
    config.placement.roles = {"rollout": "checker"}
    assert problems(config, called, gpus=2) == []
    config.placement.roles = {"rollout": "checker", "checker": "checker"}
    (told,) = problems(config, called, gpus=2)
    assert "checker generates on pool checker" in told or "rollout generates on pool checker" in told


def test_a_policy_beside_the_actor_has_engines_and_settings_as_an_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own section stands where its worker looks for the actor's; nobody else's settings are changed."""
    monkeypatch.setitem(roles._components, "checker", type("Checker", (ActorRole,), {}))
    config = Config()
    config.rollout.engine = "generates"
    config.checker = ActorConfig(engine="trains")  # type: ignore[attr-defined]
    assert engines_of(config, "checker") == Engines("trains", "generates")
    assert engines_of(config, "actor") == engines_of(config, "rollout") == Engines("megatron", "generates")
    assert engines_of(config, "critic") == Engines("megatron")
    assert settings_of_worker(config, "checker").actor is config.checker  # type: ignore[attr-defined]
    for role in ("actor", "critic", "rollout", "reward"):
        assert settings_of_worker(config, role) is config
