"""Processes find each other at an address that they are given, and listen nowhere else."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path

import pytest

from hybridflow.parallel.rendezvous import meet, serve

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
