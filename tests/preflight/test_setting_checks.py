"""Names that settings give: each is registered, for the role that it works for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hybridflow.algorithms import Algorithm, StepContext
from hybridflow.algorithms.schedule import Schedule, schedules
from hybridflow.batch import Batch, BatchRef
from hybridflow.config import compose
from hybridflow.engines.base import TrainingBackend, training_engines
from hybridflow.models.model_shape import shape_of
from hybridflow.preflight import setting_checks
from hybridflow.roles import ActorRole
from hybridflow.roles.rollout import TrainingActorRole
from hybridflow.workers import Worker, worker, workers
from hybridflow.workers.worker import OUR_WORKERS
from tests.cli.conftest import QWEN2

COMPOSED = compose.compose("train", ["experiment=addition"])


def problems(role: str, worker: str, algorithm: str = "safe_rlhf") -> list[str]:
    config = COMPOSED.to_config()
    config.algorithm.name = algorithm
    getattr(config, role).worker = worker
    return [line for line in setting_checks.problems(config) if line.startswith(f"{role}.worker")]


@pytest.mark.parametrize("role", ["actor", "critic", "cost_critic", "reference", "reward", "cost"])
def test_a_worker_that_nobody_registers_is_named(role: str) -> None:
    (line,) = problems(role, f"{role}x")
    assert line.startswith(f"{role}.worker: '{role}x' given, but no worker is named so; did you mean {role}?")


def test_a_worker_of_another_role_is_told() -> None:
    (line,) = problems("actor", "critic")
    assert line.startswith("actor.worker: 'critic' given, but it works for the role critic. There is actor")
    assert problems("reward", "model") == problems("cost", "cost_model") == []


def test_a_role_that_takes_no_part_needs_no_worker() -> None:
    assert problems("critic", "nope", algorithm="grpo") == []


def test_a_worker_of_the_users_own_is_right() -> None:
    @workers.register("mine_for_test_sound")
    class Mine(Worker): ...

    try:
        assert problems("actor", "mine_for_test_sound") == []
    finally:
        del workers._components["mine_for_test_sound"]


@pytest.mark.parametrize(
    ("lends", "worker", "lacking", "what_to_do"),
    [
        (False, "mine", "connect, report_version, send_weights", "derive it from TrainingActorWorker of hybridflow"),
        (False, "frozen_actor", "connect, report_version, send_weights", "leave it out"),
        (False, "training", "", ""),
        (False, "training_actor", "", ""),
        (True, "training", "advance_rollouts, rest_rollouts", "derive it from LendingActorWorker of hybridflow"),
        (True, "training_actor", "advance_rollouts, rest_rollouts", "leave it out"),
        (True, "lending_actor", "", ""),
        (True, "actor", "", ""),
    ],
)
def test_an_actors_worker_can_give_weights_to_generations_own_pool(
    lends: bool, worker: str, lacking: str, what_to_do: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(ActorRole[Batch], Worker): ...

    class Training(TrainingActorRole[Batch], Worker): ...

    monkeypatch.setitem(workers._components, "mine", Mine)
    monkeypatch.setitem(workers._components, "training", Training)
    overrides = ("experiment=addition", "placement=rollout_pool", f"placement.lend_idle_slots={str(lends).lower()}")
    config = compose.compose("train", [*overrides]).to_config()
    config.actor.worker = worker
    found = [line for line in setting_checks.problems(config) if line.startswith("actor.worker")]
    assert [f"it has no {lacking}; {what_to_do}" in line for line in found] == [True] * bool(lacking)


def test_our_workers_are_those_that_are_named() -> None:
    folder = Path(worker.__file__).parent
    ours = [
        name for file in folder.glob("*.py") for name in re.findall(r'@workers.register\("(\w+)"', file.read_text())
    ]
    assert sorted(ours) == sorted(name for names in OUR_WORKERS.values() for name in names)


@pytest.mark.parametrize("key", ["actor.engine", "critic.engine", "rollout.engine"])
def test_an_engine_that_nobody_registers_is_named_and_those_there_are(key: str) -> None:
    config = COMPOSED.to_config()
    section, _, name = key.partition(".")
    setattr(getattr(config, section), name, "megatrn" if section != "rollout" else "vlm")
    [line] = [line for line in setting_checks.problems(config) if ".engine:" in line]
    nearest = "megatron" if section != "rollout" else "vllm"
    assert line.startswith(f"{key}: ") and f"did you mean {nearest}" in line.replace("'", "")


@pytest.mark.parametrize(
    ("hardware", "gpus", "problem"),
    [
        ("h100", 8, "trainer.hardware: nothing is named 'h100'; did you mean h100_80g_8x?"),
        ("nowhere.yaml", 8, "trainer.hardware: nowhere.yaml does not exist; there is"),
        ("h100_80g_8x", 0, "trainer.hardware: h100_80g_8x is of a gpu, and models run on a cpu here"),
        ("cpu", 8, "trainer.hardware: cpu is of a cpu, and models run on a gpu here"),
        ("cpu", 0, None),
        ("cpu", None, None),
    ],
)
def test_a_hardware_file_can_be_read_and_is_of_what_models_run_on(
    hardware: str, gpus: int | None, problem: str | None
) -> None:
    config = COMPOSED.to_config()
    config.trainer.hardware = hardware
    found = [line for line in setting_checks.problems(config, gpus=gpus) if line.startswith("trainer.hardware")]
    assert [line[: len(problem or "")] for line in found] == ([problem] if problem else [])


def test_an_engine_of_the_users_own_is_right() -> None:
    @training_engines.register("mine_for_test_sound")
    class Mine(TrainingBackend):
        sharding = build = classmethod(lambda cls, *args, **options: None)

    config = COMPOSED.to_config()
    config.actor.engine = "mine_for_test_sound"
    try:
        assert [line for line in setting_checks.problems(config) if ".engine:" in line] == []
    finally:
        del training_engines._components["mine_for_test_sound"]


def test_a_schedule_takes_what_it_is_given() -> None:
    class Slow(Schedule):
        def __init__(self, algorithm: Algorithm) -> None: ...

        def take_step(self, context: StepContext) -> BatchRef: ...

    schedules.register("slow_for_test")(Slow)
    config = COMPOSED.to_config()
    config.trainer.schedule = "slow_for_test"
    try:
        [line] = [line for line in setting_checks.problems(config) if line.startswith("trainer.")]
    finally:
        del schedules._components["slow_for_test"]
    assert line == (
        "trainer.schedule: 'slow_for_test' cannot be made: its __init__ is given algorithm and steps; "
        "too many positional arguments"
    )


def test_what_an_engine_gives_as_its_sharding_is_one() -> None:
    @training_engines.register("none_for_test")
    class NoSharding(TrainingBackend):
        sharding = build = classmethod(lambda cls, *args, **options: None)

    config = COMPOSED.to_config()
    config.actor.engine = config.critic.engine = config.reference.engine = "none_for_test"
    try:
        [line] = [
            line for line in setting_checks.problems(config, {"actor": shape_of(QWEN2)}) if line.startswith("actor.")
        ]
    finally:
        del training_engines._components["none_for_test"]
    assert line.startswith("actor.engine: the sharding that 'none_for_test' gives is a NoneType without shape, tensor,")
