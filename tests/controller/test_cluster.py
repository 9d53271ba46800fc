"""Joining a cluster."""

from __future__ import annotations

import time

import pytest

from hybridflow.controller import cluster
from hybridflow.errors import HybridFlowError


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:none", "nowhere"])
def test_an_address_where_no_cluster_is(address: str) -> None:
    start = time.time()
    wanted = f"ray.address: no Ray cluster at '{address}' .*use ray.address=local"
    with pytest.raises(HybridFlowError, match=wanted), cluster(address):
        pass
    assert time.time() - start < 10
