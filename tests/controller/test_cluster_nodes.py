"""What the cluster's nodes have, in words: those that are alike together, whatever order Ray gives them in."""

from __future__ import annotations

from itertools import permutations

import pytest

from hybridflow.controller.cluster_nodes import ClusterNode, described, in_words


def node(address: str, cpus: float, free: float | None, gpus: float = 0.0) -> ClusterNode:
    total = {"CPU": cpus, "GPU": gpus}
    return ClusterNode(address, total, None if free is None else {"CPU": free, "GPU": gpus}, total)


def test_nodes_that_are_alike_are_told_together() -> None:
    nodes = [node("10.0.0.4", 8, 2), node("10.0.0.5", 1, 1), node("10.0.0.6", 8, 2)]
    told = {described(order) for order in permutations(nodes)}
    assert told == {"2 nodes (10.0.0.4, 10.0.0.6), each with 2 of 8 CPUs free; 1 node (10.0.0.5) with 1 of 1 CPU free"}


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ([], "no node"),
        ([node("a", 0, 0)], "1 node (a) with 0 of 0 CPUs free"),
        ([node("a", 64, 3, gpus=8)], "1 node (a) with 3 of 64 CPUs and 8 of 8 GPUs free"),
        ([node("a", 64, None, gpus=8)], "1 node (a) with 64 CPUs and 8 GPUs"),
        ([node(name, 2, 2) for name in "abcde"], "5 nodes (a, b, c, …), each with 2 of 2 CPUs free"),
    ],
)
def test_what_is_there_is_told(nodes: list[ClusterNode], told: str) -> None:
    assert described(nodes) == told


def test_of_many_kinds_of_nodes_the_first_are_told() -> None:
    assert described([node(str(at), at + 1, 1) for at in range(9)]).endswith("; 3 more nodes")


def test_amounts_have_their_units() -> None:
    assert in_words({"CPU": 1.0, "GPU": 2.0}) == "1 CPU and 2 GPUs"
