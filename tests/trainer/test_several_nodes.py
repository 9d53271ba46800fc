"""An actor of 4 ranks on two nodes: tensor groups inside of nodes, pipeline stages on both, and the numbers of one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from hybridflow.cli import model
from tests.forked_ranks import command


@pytest.mark.slow
@pytest.mark.ranks
def test_an_actor_over_two_nodes_learns_as_on_one(tmp_path: Path, forks: dict[str, str]) -> None:
    folder = tmp_path / "model"
    assert model.run(["addition", "--out", str(folder)]) == 0
    program = command("-m", "tests.trainer.several_nodes", str(folder), environment=forks)
    environment = {**os.environ, **forks, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    ran = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 0, ran.stderr
    by_nodes, by_auto, alone = map(json.loads, ran.stdout.splitlines())
    for apart in (by_nodes, by_auto):
        assert len({*apart["ranks"]}) == 2
        assert nodes_by_group(apart["ranks"], apart["training"]) == [1, 1], "a tensor group is on one node"
    assert nodes_by_group(by_auto["ranks"], by_auto["generating"]) == [1, 1], "and so it is in generation"
    assert by_nodes["steps"] == alone["steps"] and len(alone["steps"]) == 2
    assert all(step["actor/grad_norm"] > 0 for step in alone["steps"]), "there is something to learn"
    assert all(step["actor/rollout_log_prob_diff_max"] < 1e-4 for ran in (alone, by_auto) for step in ran["steps"])


def nodes_by_group(nodes: list[str], places: list[list[int]]) -> list[int]:
    """Count the nodes of each tensor group: ranks of one replica and one stage."""
    groups: dict[tuple[int, int], set[str]] = {}
    for node, (replica, stage, _) in zip(nodes, places, strict=True):
        groups.setdefault((replica, stage), set()).add(node)
    return [len(group) for group in groups.values()]
