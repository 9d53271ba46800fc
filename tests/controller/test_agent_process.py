"""The program in the place of Ray's agents writes their ports as Ray does, and knows all that a raylet waits for."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import _raylet

from hybridflow.controller import ray_start

NODE = "ab" * 28


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Its functions; it is told to be the agent of a node with this session."""
    file = Path(ray_start.__file__).with_name("agent_process.py")
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # it removes the first
    functions = runpy.run_path(str(file))
    monkeypatch.setattr(sys, "argv", ["main.py", f"--session-dir={tmp_path}", f"--node-id={NODE}"])
    return functions


@pytest.mark.parametrize("port", [-1, 4711])
def test_a_port_is_written_as_ray_does(program: dict[str, Any], tmp_path: Path, port: int) -> None:
    _raylet.persist_port(str(tmp_path), NODE, "of_rays", port)
    program["persist_port"]("of_ours", port)
    files = {file.name.replace("of_rays", "of_ours"): file.read_bytes() for file in tmp_path.iterdir()}
    assert len(files) == 1 and len([*tmp_path.iterdir()]) == 2, "both have one name but for that of the port"
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    assert _raylet.wait_for_persisted_port(str(tmp_path), NODE, "of_ours", 1000) == port


def test_the_ports_are_those_that_ray_names(program: dict[str, Any]) -> None:
    """It has other words for them where a new version renames one, and then a raylet would wait in vain."""
    names = {getattr(_raylet, name) for name in dir(_raylet) if name.endswith("_PORT_NAME")}
    ours = {*program["DASHBOARD_PORTS"], program["RUNTIME_ENV_PORT"]}
    assert ours == {name for name in names if name != _raylet.GCS_SERVER_PORT_NAME}
    assert ray.__version__ == "2.60.0"
