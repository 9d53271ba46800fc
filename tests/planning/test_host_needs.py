"""A run that will not fit into this machine is told before its processes start."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from hybridflow.algorithms import algorithms
from hybridflow.algorithms.algorithm import Algorithm
from hybridflow.config import compose
from hybridflow.config.schema import Config
from hybridflow.observe.host_memory import HostMemory
from hybridflow.placement import resolve
from hybridflow.planning.host_needs import LIGHT_BYTES, PROCESS_BYTES, any_flow, host_warning
from hybridflow.planning.run_spec import FlowCall, Work
from hybridflow.planning.spec_of_config import spec_of
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


def test_a_rank_without_torch_takes_less(folder: Path) -> None:
    apart = load(folder, "placement.pools={main: 2, judges: 4}", "placement.roles={reward: judges}")
    processes = (2 * PROCESS_BYTES + 4 * LIGHT_BYTES) / GIB
    assert gib(apart, LITTLE) == pytest.approx(processes + 2 * apart.rollout.kv_cache_gib, abs=0.1)


def most_sequences(calls: Iterable[FlowCall]) -> dict[tuple[str, Work], int]:
    """The most sequences that a role scores at once, and learns from."""
    most: dict[tuple[str, Work], int] = {}
    for call in calls:
        if call.work in (Work.score, Work.train):
            key = call.role, call.work
            most[key] = max(most.get(key, 0), call.rows * call.sequences)
    return most


@pytest.mark.parametrize(
    "settings",
    [
        ("algorithm=ppo",),
        ("algorithm=dapo",),
        ("algorithm=remax",),
        ("algorithm=safe_rlhf",),
        ("algorithm=dpo", "task=addition_pairs"),
        ("algorithm=ppo", "algorithm.minibatches=3"),
    ],
    ids=" ".join,
)
def test_no_flow_of_ours_has_more_at_once_than_is_taken_for_any(folder: Path, settings: tuple[str, ...]) -> None:
    """Of a pair that a policy learns from both responses count."""
    config = load(folder, *settings)
    flow = algorithms.get(config.algorithm.name)
    taken = most_sequences(any_flow(config, resolve(config, flow.roles_of(config.algorithm), gpus=0)).calls)
    traced = most_sequences(spec_of(config).flow)
    assert ("actor", Work.train) in traced
    assert {key: taken[key] for key, sequences in traced.items() if taken[key] < sequences} == {}
    if flow.preferences:
        assert traced[("actor", Work.train)] == taken[("actor", Work.train)] == 2 * 4
