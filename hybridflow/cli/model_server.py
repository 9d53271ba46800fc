"""vLLM's own commands on an exported folder: its server in this process's place, or behind a chat, and never longer.

Servers listen on this machine alone.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.observe import terminal
from hybridflow.observe.terminal import one_line

HOST = "127.0.0.1"
STARTS_WITHIN_S = 600.0
ENDS_WITHIN_S = 30.0  # after which it is killed
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Server:
    """vLLM's server of a model.

    Attributes:
        vllm: vLLM's command.
        model: the folder; its last name is the model's in requests.
        dtype: the number format that the run generated with; vLLM would take another for float32.
        cpu_cache_gib: where it serves on a CPU, the size of its cache, as it would take nearly all memory; 0: on a GPU.
    """

    vllm: Sequence[str]
    model: Path
    port: int
    dtype: str
    cpu_cache_gib: float = 0.0

    @property
    def command(self) -> list[str]:
        """Return the command that serves on this machine alone, with the model's own generation settings."""
        on_cpu = ["--kv-cache-memory-bytes", str(int(self.cpu_cache_gib * 2**30)), "--enforce-eager"]
        return [
            *(*self.vllm, "serve", str(self.model), "--host", HOST, "--port", str(self.port)),
            *("--served-model-name", self.model.name, "--generation-config", str(self.model), "--dtype", self.dtype),
            *(on_cpu if self.cpu_cache_gib else []),
        ]


def vllm_command() -> list[str]:
    """Return vLLM's command, of this environment. Raises ConfigError without vLLM."""
    if find_spec("vllm") is None:
        raise ConfigError("--serve, --chat: vLLM is not installed in this environment; see docs/install.md")
    return [sys.executable, "-P", "-m", "hybridflow.cli.vllm_command"]  # -P: no module of the user's shadows its own


def check_port(port: int) -> None:
    """Raise ConfigError if nothing can listen there: a chat would find whoever does."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one that has ended is no one
        try:
            trial.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"--port {port}: {str(error).rstrip('.')}; give another, from 1024 to 65535") from error


def serve(server: Server) -> None:
    """Become the server, so that signals are its own: nothing of ours is left to outlive or to end it. No return."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(server.command[0], server.command, _environment())


def chat(server: Server) -> int:
    """Chat with the model in this terminal; return the chat's exit status.

    Raises HybridFlowError with the server's last words if it does not start.
    """
    with _interrupted_by_signals(), _served(server):
        return subprocess.call([*server.vllm, "chat", "--url", f"http://{HOST}:{server.port}/v1"], env=_environment())


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Let a SIGTERM, and a terminal that hangs up, end the block in order as Ctrl-C does."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _served(server: Server) -> Iterator[None]:
    """Serve while the block runs; a Ctrl-C in the terminal is the chat's."""
    log = server.model.with_name(f"{server.model.name}-server.log")
    with (
        log.open("w") as said,
        subprocess.Popen(
            server.command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=_environment(),
            start_new_session=True,
            preexec_fn=_end_with_us,
        ) as process,
    ):
        try:
            terminal.say(one_line(f"starting the server; what it says goes to {log}"))
            _wait_until_healthy(process, server.port, log)
            yield
        finally:
            _end(process)


def _environment() -> dict[str, str]:
    """Return the environment of vLLM's commands: no port is open to others, nothing reported, no proxy asked for us."""
    direct = ",".join(filter(None, (os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), HOST)))
    own = {"VLLM_HOST_IP": HOST, "VLLM_NO_USAGE_STATS": "1", "no_proxy": direct, "NO_PROXY": direct}
    return {**os.environ, **own}


def _end_with_us() -> None:
    """Let the kernel end this process with the one that started it, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and what it has started: in order, or after a while or a second Ctrl-C by force."""
    process.terminate()
    try:
        process.wait(ENDS_WITHIN_S)
    finally:
        with suppress(ProcessLookupError):  # all of its session are gone
            os.killpg(process.pid, signal.SIGKILL)


def _cause(log: Path) -> str:
    """Return why a server ended: the first error in its log, as those of its other processes follow from that."""
    said = log.read_text(errors="replace").strip()
    errors = re.findall(r"\w*(?:Error|Exception): .+", said)
    return errors[0] if errors else said.rpartition("\n")[2]


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN_S
    direct = build_opener(ProxyHandler({}))  # a proxy of the environment has another 127.0.0.1
    while time.monotonic() < end:
        if process.poll() is not None:
            raise HybridFlowError(f"the server ended with status {process.returncode}: {_cause(log)} ({log})")
        try:
            with direct.open(f"http://{HOST}:{port}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise HybridFlowError(f"the server did not start within {STARTS_WITHIN_S:.0f} s; see {log}")
