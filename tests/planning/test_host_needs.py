"""A run that will not fit into this machine is told before its processes start."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hybridflow.algorithms.algorithm import Algorithm
from hybridflow.config import compose
from hybridflow.config.schema import Config
from hybridflow.observe.host_memory import HostMemory
from hybridflow.placement import resolve
from hybridflow.planning.host_needs import PROCESS_BYTES, host_warning
from tests.conftest import GetModel

GIB = 2**30
PPO = ("actor", "critic", "reference", "reward")
LITTLE = HostMemory(GIB, 64 * GIB)


@pytest.fixture
def folder(tiny: GetModel) -> Path:
    return tiny()


def load(folder: Path, *overrides: str) -> Config:
    small = ("algorithm.prompts_per_step=4", "algorithm.samples_per_prompt=2", "placement.device=cpu")
    settings = [f"actor.model.path={folder}", "placement.pools={main: 2}", *small, *overrides]
    return compose.compose("train", ["experiment=addition", *settings]).to_config()


def gib(config: Config, memory: HostMemory) -> float:
    """What the run is said to take."""
    told = re.match(
        r"warning: this run takes about ([\d.]+) GiB", host_warning(config, resolve(config, PPO, gpus=0), memory)
    )
    return float(told[1]) if told else 0.0


def test_small_models_take_what_processes_and_caches_take(folder: Path) -> None:
    """Two ranks, each a replica of the actor; then one replica of both, which share its cache."""
    processes = 2 * PROCESS_BYTES / GIB
    assert gib(load(folder, "rollout.kv_cache_gib=3"), LITTLE) == pytest.approx(processes + 2 * 3.0, abs=0.1)
    together = load(folder, "rollout.kv_cache_gib=3", "rollout.parallel.tensor=2")
    assert gib(together, LITTLE) == pytest.approx(processes + 3.0, abs=0.1)


def test_longer_micro_batches_take_more(folder: Path) -> None:
    rows = ("algorithm.prompts_per_step=4096", "actor.max_tokens_per_rank=1048576", "actor.parallel.tensor=1")
    assert gib(load(folder, *rows), LITTLE) > gib(load(folder, *rows, "actor.recompute=full"), LITTLE) > 2


def test_what_fits_and_what_is_not_known_says_nothing(folder: Path) -> None:
    config = load(folder)
    placed = resolve(config, PPO, gpus=0)
    assert host_warning(config, placed, HostMemory(60 * GIB, 64 * GIB)) == ""
    assert host_warning(config, placed, None) == ""
    elsewhere = load(folder, "ray.address=10.0.0.1:6379")
    assert host_warning(elsewhere, placed, LITTLE) == ""


def test_nobodys_flow_is_run_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may do anything."""
    config = load(folder)
    monkeypatch.setattr(Algorithm, "generate", lambda self, prompts: pytest.fail("the flow was run"))
    assert gib(config, LITTLE) > 0
