"""The server and the chat of an exported model, with a command that stands in the place of vLLM's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hybridflow.cli import model_server
from hybridflow.cli.model_server import Server
from hybridflow.errors import ConfigError, HybridFlowError

VLLM = f"""#!{sys.executable}
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import urlopen

class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

if sys.argv[1] == "serve":
    open("server.pid", "w").write(str(os.getpid()))
    HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Healthy).serve_forever()
elif sys.argv[1] == "chat":
    sys.exit(int(input()))
sys.exit("no such model")
"""
CHAT = "import sys; from pathlib import Path; from hybridflow.cli.model_server import Server, chat; "


@pytest.fixture
def port() -> int:
    with socket.socket() as trial:
        trial.bind((model_server.HOST, 0))
        return int(trial.getsockname()[1])


@pytest.fixture
def vllm(tmp_path: Path) -> list[str]:
    command = tmp_path / "vllm"
    command.write_text(VLLM)
    command.chmod(0o755)
    return [str(command)]


def start_chat(vllm: list[str], folder: Path, port: int) -> subprocess.Popen[str]:
    code = f"{CHAT} sys.exit(chat(Server({vllm!r}, Path('model'), {port}, 'float32')))"
    no_proxy_answers = "http://127.0.0.1:9"  # nor is one to be asked
    own = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]), http_proxy=no_proxy_answers, no_proxy="")
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=own, stdin=pipe, stderr=pipe, text=True)


def is_served(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex((model_server.HOST, port)) == 0


def test_the_server_listens_on_this_machine_alone_and_takes_no_more_memory_than_the_run() -> None:
    command = Server(["vllm"], Path("out/mine"), 8001, "float32", cpu_cache_gib=0.5).command
    assert command[:7] == ["vllm", "serve", "out/mine", "--host", "127.0.0.1", "--port", "8001"]
    names = ["--served-model-name", "mine", "--generation-config", "out/mine", "--dtype", "float32"]
    assert command[7:] == [*names, "--kv-cache-memory-bytes", str(2**29), "--enforce-eager"]
    assert Server(["vllm"], Path("out/mine"), 8001, "float32").command == command[:13], "on a GPU that is vLLM's to say"


def test_the_server_takes_our_place(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *given: done.append(given))
    monkeypatch.delenv("VLLM_NO_USAGE_STATS", raising=False)
    server = Server(["/bin/vllm"], Path("mine"), 8001, "bfloat16")
    model_server.serve(server)
    ((path, argv, environment),) = done
    assert (path, argv) == ("/bin/vllm", server.command)
    assert environment["VLLM_NO_USAGE_STATS"] == "1" and environment["VLLM_HOST_IP"] == "127.0.0.1"


def test_a_port_at_which_somebody_listens_is_refused(port: int) -> None:
    model_server.check_port(port)
    with (
        socket.create_server((model_server.HOST, port)),
        pytest.raises(ConfigError, match=rf"--port {port}: .* in use"),
    ):
        model_server.check_port(port)
    with pytest.raises(ConfigError, match=r"--port 70000: .*; give another"):
        model_server.check_port(70000)


@pytest.mark.processes
@pytest.mark.parametrize("end", [None, signal.SIGTERM])
def test_nothing_is_left_of_a_chat_that_ended(
    vllm: list[str], tmp_path: Path, port: int, end: signal.Signals | None
) -> None:
    process = start_chat(vllm, tmp_path, port)
    assert process.stdin is not None
    if end is None:
        process.stdin.write("7\n")
        process.stdin.flush()
    else:
        while not is_served(port):
            assert process.poll() is None
        process.send_signal(end)
    process.wait(60)
    assert (process.returncode == 7) == (end is None)
    assert not is_served(port) and not Path(f"/proc/{(tmp_path / 'server.pid').read_text()}").exists()


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("raise SystemExit('no such model')", "no such model"),
        (
            "print('ValueError: no memory', flush=True); raise RuntimeError('See root cause above')",
            "ValueError: no memory",
        ),
    ],
)
def test_a_server_that_does_not_start_is_told_with_the_cause(
    tmp_path: Path, port: int, vllm: list[str], program: str, told: str
) -> None:
    Path(vllm[0]).write_text(f"#!{sys.executable}\n{program}\n")
    with pytest.raises(HybridFlowError, match=rf"the server ended with status 1: {told} \(.*mine-server.log\)"):
        model_server.chat(Server(vllm, tmp_path / "mine", port, "float32"))
