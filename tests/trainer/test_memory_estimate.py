"""A run that will not fit into this machine is told before its processes start."""

from __future__ import annotations

import re

import pytest

from hybridflow.config.schema import Config
from hybridflow.observe.host_memory import HostMemory
from hybridflow.placement import resolve
from hybridflow.trainer.memory_estimate import PROCESS_BYTES, warning
from tests.conftest import GetModel

GIB = 2**30
PPO = ("actor", "critic", "reference", "reward")


@pytest.fixture
def config(tiny: GetModel) -> Config:
    config = Config()
    config.placement.pools = {"main": 2}
    for role in (config.actor, config.critic, config.reference):
        role.model.path = str(tiny())
    return config


def gib(config: Config, memory: HostMemory) -> float:
    """What the run is said to take."""
    told = re.match(
        r"warning: this run takes about ([\d.]+) GiB", warning(config, resolve(config, PPO, gpus=0), memory)
    )
    return float(told[1]) if told else 0.0


def test_small_models_take_what_processes_and_caches_take(config: Config) -> None:
    """Two ranks, each a replica of the actor."""
    config.rollout.kv_cache_gib = 3.0
    little = HostMemory(GIB, 64 * GIB)
    assert gib(config, little) == pytest.approx(2 * PROCESS_BYTES / GIB + 2 * 3.0, abs=0.06)
    config.actor.parallel.tensor = 2
    config.rollout.parallel.tensor = 2
    assert gib(config, little) == pytest.approx(2 * PROCESS_BYTES / GIB + 3.0, abs=0.06)


def test_what_fits_and_what_is_not_known_says_nothing(config: Config) -> None:
    placed = resolve(config, PPO, gpus=0)
    assert warning(config, placed, HostMemory(60 * GIB, 64 * GIB)) == ""
    assert warning(config, placed, None) == ""
    config.ray.address = "10.0.0.1:6379"
    assert warning(config, placed, HostMemory(GIB, 64 * GIB)) == ""
