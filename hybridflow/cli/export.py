"""`hybridflow export`: the model of a run, or of a checkpoint, as a Hugging Face folder; and served from it."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.observe import terminal
from hybridflow.observe.terminal import one_line

HOST = "127.0.0.1"
STARTS_WITHIN_S = 600.0


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow export ARGV` and return the exit status. Raises ConfigError for what cannot be exported."""
    options = _parser().parse_args(argv)
    vllm = _vllm() if options.serve or options.chat else ""
    out: Path = options.out
    from hybridflow.trainer.export import export
    from hybridflow.trainer.saved_run import find

    saved = find(options.run)
    if saved.role != "actor" and (options.serve or options.chat):
        raise ConfigError(
            f"{options.run}: a {saved.role.replace('_', ' ')} gives scores and no text; leave --serve out"
        )
    terminal.say(one_line(f"exporting {saved.name} to {out}"))
    size = export(saved, out)
    terminal.say(one_line(f"{out}: {size / 1e6:.1f} MB of weights, after {saved.steps} steps"))
    if options.serve:
        return subprocess.call(server(vllm, out, options.port))
    if options.chat:
        with _served(vllm, out, options.port):
            return subprocess.call([vllm, "chat", "--url", f"http://{HOST}:{options.port}/v1"])
    return 0


def server(vllm: str, model: Path, port: int) -> list[str]:
    """Return the command that serves a model on this machine alone, with its own generation settings."""
    return [
        *(vllm, "serve", str(model), "--host", HOST, "--port", str(port)),
        *("--served-model-name", model.name, "--generation-config", str(model)),
    ]


@contextmanager
def _served(vllm: str, model: Path, port: int) -> Iterator[None]:
    """Serve while the block runs. Raises HybridFlowError with the server's last words if it does not start."""
    log = model.with_name(f"{model.name}-server.log")
    with log.open("w") as stream, subprocess.Popen(server(vllm, model, port), stdout=stream, stderr=stream) as process:
        try:
            terminal.say(one_line(f"starting the server; what it says goes to {log}"))
            _wait_until_healthy(process, port, log)
            yield
        finally:
            process.terminate()


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < end:
        if process.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise HybridFlowError(f"the server ended with status {process.returncode}: {''.join(last)} ({log})")
        try:
            with urlopen(f"http://{HOST}:{port}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise HybridFlowError(f"the server did not start within {STARTS_WITHIN_S:.0f} s; see {log}")


def _vllm() -> str:
    """Return the path of vLLM's command: beside this Python, else on the search path. Raises ConfigError without."""
    beside = Path(sys.executable).parent / "vllm"
    command = str(beside) if beside.is_file() else shutil.which("vllm")
    if command is None:
        raise ConfigError("--serve, --chat: there is no command `vllm`: install vllm, see docs/install.md")
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hybridflow export",
        description="Write the model of a run as a Hugging Face folder: that of its end, or of a checkpoint.",
    )
    parser.add_argument(
        "run", metavar="RUN[:STEP]", help="a run folder, as runs/mine; runs/mine:40, :best or :latest for a checkpoint"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="an empty folder, or a new one")
    after = parser.add_mutually_exclusive_group()
    after.add_argument("--serve", action="store_true", help=f"then serve it with vLLM, on {HOST} alone")
    after.add_argument("--chat", action="store_true", help="then serve it and chat with it in this terminal")
    parser.add_argument("--port", type=int, default=8000, help="of the server (8000)")
    return parser
