"""Joining a cluster."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from ray import cloudpickle

from hybridflow.config import temporary_folder
from hybridflow.controller import cluster, search_path
from hybridflow.controller.cluster import _folder, _temporary_files
from hybridflow.controller.ray_start import own_token
from hybridflow.controller.running_cluster import warn_if_open
from hybridflow.errors import ConfigError, HybridFlowError


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:none", "nowhere"])
def test_an_address_where_no_cluster_is(address: str) -> None:
    start = time.time()
    wanted = f"ray.address: no Ray cluster at '{address}' .*use ray.address=local"
    with pytest.raises(HybridFlowError, match=wanted), cluster(address):
        pass
    assert time.time() - start < 10


@pytest.mark.parametrize("answers", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_something_else_listens(answers: bytes) -> None:
    start = time.time()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server, answers), daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"no Ray cluster at '{address}' \(something listens"), cluster(address):
            pass
    assert time.time() - start < 20


def serve(server: socket.socket, answers: bytes) -> None:
    kept = []
    while True:
        connection, _ = server.accept()
        connection.sendall(answers)
        kept.append(connection)


def test_auto_where_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    start = time.time()
    with pytest.raises(ConfigError, match=r"no Ray cluster at 'auto' .*use ray\.address=local"), cluster("auto"):
        pass
    assert time.time() - start < 10


def test_a_temporary_folder_that_is_too_deep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(deep))
    with pytest.raises(ConfigError, match=r"TMPDIR: .* bytes long.*set RAY_TMPDIR to a folder"), cluster():
        pass


def test_the_token_of_a_local_cluster_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with own_token(True):
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert "RAY_AUTH_TOKEN" not in os.environ
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    with own_token(True):
        assert os.environ["RAY_AUTH_TOKEN"] == "given"


def test_the_search_goes_to_the_drivers_folders_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "relative", "/somewhere/site-packages", *sys.path])
    folders = search_path.own_folders()
    assert folders[:2] == [str(tmp_path), str(tmp_path / "relative")]
    assert not any("site-packages" in folder or folder == os.path.dirname(os.__file__) for folder in folders)
    with search_path.process_setup() as setup:
        sent = cloudpickle.dumps(setup)
    environment = {**search_path.environment(), search_path.FOLDERS: f"{tmp_path}{os.pathsep}/last"}
    program = "import pickle, sys, os\npickle.load(sys.stdin.buffer)()\nprint(sys.path[-2:], os.getcwd())"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], env=environment, input=sent, capture_output=True, cwd="/", check=True
    )
    assert done.stdout.decode().strip() == f"{[str(tmp_path), '/last']} {tmp_path}"


@contextmanager
def head(*, wants_token: bool) -> Iterator[str]:
    """A head that answers as Ray's does when it is asked for the cluster's id; its address."""

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        if wants_token:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        return b""

    server = grpc.server(ThreadPoolExecutor(1))
    methods = {"GetClusterId": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@pytest.mark.parametrize("wants_token", [True, False])
def test_a_cluster_that_asks_for_no_token_is_told(wants_token: bool, caplog: pytest.LogCaptureFixture) -> None:
    with head(wants_token=wants_token) as address:
        warn_if_open(address)
    told = [record.getMessage() for record in caplog.records]
    assert told == [] if wants_token else told[0].startswith(f"ray.address: the cluster at {address} asks for no token")


def test_the_folder_of_a_cluster_is_private_and_does_not_stay(tmp_path: Path) -> None:
    """Also that of a process which was killed."""
    (tmp_path / "hf-ray-left").mkdir()
    (tmp_path / "hf-ray-left" / "owner").touch()
    with _folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [*tmp_path.iterdir()] == [folder]
        (folder / "r/session/logs").mkdir(parents=True)
    assert [*tmp_path.iterdir()] == []


def test_temporary_files_of_ranks_go_with_the_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """But not what torch has compiled, which the next run needs too. Sockets need a short path, files much room."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    short, large = tmp_path / "short", tmp_path / "large"
    for folder in (short, large):
        folder.mkdir()
    environment = _temporary_files([short, large])
    assert Path(environment["TMPDIR"]).parent == large and Path(environment["VLLM_RPC_BASE_PATH"]).parent == short
    assert Path(environment["TMPDIR"]).is_dir() and Path(environment["VLLM_RPC_BASE_PATH"]).is_dir()
    assert tmp_path not in Path(environment["TORCHINDUCTOR_CACHE_DIR"]).parents
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/given")
    other = tmp_path / "other"
    other.mkdir()
    environment = _temporary_files([other])
    assert environment["TORCHINDUCTOR_CACHE_DIR"] == "/given"
    assert environment["TMPDIR"] == environment["VLLM_RPC_BASE_PATH"]


def test_files_go_elsewhere_than_sockets_only_if_they_are_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(temporary_folder.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    assert temporary_folder.places() == [tmp_path]
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert temporary_folder.places() == [Path("/tmp"), tmp_path]
