"""Whole runs on a cluster that they have joined, which loses a node, or its head: rows of `benchmarks.faults`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from benchmarks.fault_clusters import ROWS
from benchmarks.fault_runs import Row, Runs
from tests.forked_ranks import fork_server
from tests.joined_cluster import REDIS

NODES = [row for row in ROWS if row.name.startswith("node removed")]
HEADS = [row for row in ROWS if row.name.startswith("head killed")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with fork_server() as forks:
        runs = Runs(tmp_path_factory.mktemp("runs"), forks)
        runs.warm_up()
        yield runs


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("row", NODES, ids=lambda row: row.name)
def test_a_node_is_removed(runs: Runs, row: Row) -> None:
    result = row.make(runs)
    assert result["pass"], json.dumps(result, indent=1)


@pytest.mark.system
@pytest.mark.skipif(REDIS is None, reason="redis-server is not there: apt-get install redis-server")
@pytest.mark.parametrize("row", HEADS, ids=lambda row: row.name)
def test_the_head_is_killed_and_started_again(runs: Runs, row: Row) -> None:
    result = row.make(runs)
    assert result["pass"], json.dumps(result, indent=1)
