"""Processes find each other at an address that they are given, and listen nowhere else."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from hybridflow.parallel.rendezvous import be_reachable, interface_of, meet, serve

SECONDS = timedelta(seconds=20)


def listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def test_a_served_store_is_where_it_was_said_from_then_on() -> None:
    port = serve("127.0.0.1")
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    stores = [meet(f"tcp://127.0.0.1:{port}", rank, 2, SECONDS) for rank in (0, 1)]
    stores[0].set("from", "0")
    assert stores[1].get("from") == b"0"
    assert listens("127.0.0.1", port) and not listens("127.0.0.2", port)


def test_ports_that_are_served_differ() -> None:
    assert len({serve("127.0.0.1") for _ in range(5)}) == 5


def test_a_file_is_a_meeting_point_too(tmp_path: Path) -> None:
    stores = [meet(f"file://{tmp_path}/store", rank, 2, SECONDS) for rank in (0, 1)]
    stores[1].set("from", "1")
    assert stores[0].get("from") == b"1"


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") is None  # RFC 5737: nobody's


def test_a_machine_is_reachable_where_its_cluster_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_HOST_IP", "GLOO_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
        del os.environ[name]
    be_reachable("203.0.113.7")
    assert os.environ["VLLM_HOST_IP"] == "203.0.113.7" and "GLOO_SOCKET_IFNAME" not in os.environ
    be_reachable("127.0.0.1")
    assert (os.environ["VLLM_HOST_IP"], os.environ["GLOO_SOCKET_IFNAME"]) == ("203.0.113.7", "lo")
