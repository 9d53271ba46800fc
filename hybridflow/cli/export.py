"""`hybridflow export`: the model of a run, or of a checkpoint, as a Hugging Face folder; and served from it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hybridflow.errors import ConfigError, counted
from hybridflow.observe import terminal
from hybridflow.observe.terminal import one_line


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow export ARGV` and return the exit status. Raises ConfigError for what cannot be exported."""
    from hybridflow.cli import model_server

    options = _parser().parse_args(argv)
    served = options.serve or options.chat
    vllm = model_server.vllm_command() if served else []
    if served:
        model_server.check_port(options.port)
    out: Path = options.out
    from hybridflow.trainer.export import export
    from hybridflow.trainer.saved_run import find

    saved = find(options.run)
    if saved.role != "actor" and served:
        raise ConfigError(
            f"{options.run}: a {saved.role.replace('_', ' ')} gives scores and no text; leave --serve out"
        )
    terminal.say(one_line(f"exporting {saved.name} to {out}"))
    size = export(saved, out)
    terminal.say(one_line(f"{out}: {size / 1e6:.1f} MB of weights, after {counted(saved.steps, 'step')}"))
    if not served:
        return 0
    from hybridflow.parallel.platform import platform

    config = saved.config
    cache = config.rollout.kv_cache_gib if platform().name == "cpu" else 0.0
    server = model_server.Server(vllm, out, options.port, config.actor.model.dtype.value, cache)
    if options.serve:
        model_server.serve(server)
    return model_server.chat(server)


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
    after.add_argument("--serve", action="store_true", help="then serve it with vLLM, on this machine alone")
    after.add_argument("--chat", action="store_true", help="then serve it and chat with it in this terminal")
    parser.add_argument("--port", type=int, default=8000, help="of the server (8000)")
    return parser
