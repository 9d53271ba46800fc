"""The program in the place of Ray's agents writes their ports as Ray does, and knows all that a raylet waits for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import ray
from ray import _raylet

from hybridflow.controller import agent_process

NODE = "ab" * 28


@pytest.mark.parametrize("port", [-1, 4711])
def test_a_port_is_written_as_ray_does(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["main.py", f"--session-dir={tmp_path}", f"--node-id={NODE}"])
    _raylet.persist_port(str(tmp_path), NODE, "of_rays", port)
    agent_process.persist_port("of_ours", port)
    files = {file.name.replace("of_rays", "of_ours"): file.read_bytes() for file in tmp_path.iterdir()}
    assert len(files) == 1 and len([*tmp_path.iterdir()]) == 2, "both have one name but for that of the port"
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    assert _raylet.wait_for_persisted_port(str(tmp_path), NODE, "of_ours", 1000) == port


def test_the_ports_are_those_that_ray_names() -> None:
    """It has other words for them where a new version renames one, and then a raylet would wait in vain."""
    names = {getattr(_raylet, name) for name in dir(_raylet) if name.endswith("_PORT_NAME")}
    ours = {*agent_process.DASHBOARD_PORTS, agent_process.RUNTIME_ENV_PORT}
    assert ours == {name for name in names if name != _raylet.GCS_SERVER_PORT_NAME}
    assert ray.__version__ == "2.60.0"
