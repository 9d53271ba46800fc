"""Roles on pools: a layout fills its pool, and its tensor groups are inside of nodes."""

from __future__ import annotations

import pytest

from hybridflow.controller.role_builds import refuse_layout
from hybridflow.parallel.layout import Layout
from hybridflow.runtime.messages import Place

TWO_NODES = [Place(node, f"10.0.0.{node}", 100 + rank) for rank, node in enumerate("1122")]


def test_a_layout_that_does_not_fill_its_pool() -> None:
    with pytest.raises(ValueError, match=r"role 'scribe': its layout has 2 ranks, pool 'stage' has 4 slots"):
        refuse_layout("scribe", Layout(tensor=2), "stage", 4, [])
    refuse_layout("scribe", Layout(tensor=2, data=2), "stage", 4, TWO_NODES)


def test_a_tensor_group_on_several_nodes_is_told_with_its_ranks() -> None:
    told = r"role 'scribe': a tensor group is on several nodes \(rank 0 on 10\.0\.0\.1, .*rank 3 on 10\.0\.0\.2\); "
    with pytest.raises(ValueError, match=told + r"start pool 'stage' with together=4"):
        refuse_layout("scribe", Layout(tensor=4), "stage", 4, TWO_NODES)
    refuse_layout("scribe", Layout(pipeline=2, tensor=2), "stage", 4, TWO_NODES)
