"""`hybridflow profile`: measure this machine, and write what planning asks of it as a hardware file."""

from __future__ import annotations

import argparse
import platform as machine
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from time import monotonic

import numpy as np

from hybridflow import __version__
from hybridflow.cli import model, out_file
from hybridflow.config.schema import DType
from hybridflow.errors import before_the_start
from hybridflow.observe import terminal
from hybridflow.placement.hardware import local_gpus

CPU_MODELS = ((2, 384, 1024, 6, 3), (8, 192, 512, 6, 3))
GPU_MODELS = ((4, 1024, 2816, 16, 8), (16, 2048, 5632, 16, 8))
"""Layers, hidden, ffn, heads and heads of keys: two, so that what a layer takes is told from what it computes."""
POSITIONS = 256
CPU_INFO = Path("/proc/cpuinfo")
MEASURED = """\
Measures, on this machine alone: products of matrices, attention and copies of memory; a small actor on one rank, of two
models: how it generates, scores, learns and syncs its weights, by rows and lengths; messages between ranks, and ranks
that share cores; calls of a role, and rows through the store. What else runs here meanwhile is measured too."""


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow profile ARGV` and return the exit status. Raises ConfigError for a file that cannot be."""
    parser = argparse.ArgumentParser(
        prog="hybridflow profile", description=MEASURED, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("hardware.yaml"), metavar="FILE", help="where it goes; default hardware.yaml"
    )
    parser.add_argument("--force", action="store_true", help="replace the file that is there")
    options = parser.parse_args(argv)
    out_file.check("--out", options.out, "a hardware file", out_file.YAML, force=options.force)
    began = monotonic()
    terminal.say(MEASURED)

    def say(text: str) -> None:
        terminal.say(f"{monotonic() - began:4.0f} s  {text}")

    _profile(options.out, say)
    terminal.say(f"wrote {options.out}; hybridflow plan hardware={options.out} experiment=NAME plans with it")
    return 0


def _profile(out: Path, say: Callable[[str], None]) -> None:
    gpus = local_gpus()
    dtype = DType.bfloat16 if gpus else DType.float32
    with tempfile.TemporaryDirectory(prefix="hybridflow-profile-") as name:
        say("making two models")
        folders = [
            _model(Path(name, str(number)), *sizes) for number, sizes in enumerate(GPU_MODELS if gpus else CPU_MODELS)
        ]
        with before_the_start():
            from hybridflow.trainer.machine_profile import measure
        found = measure(folders, dtype, say)
    from hybridflow.planning.hardware_files import write_hardware
    from hybridflow.planning.hardware_fit import hardware_of, predicted

    hardware = hardware_of(found, out.stem, _source(gpus))
    write_hardware(hardware, out)
    measured = np.array([call.wall_s for call in found.calls])
    error = float(np.median(np.abs(predicted(hardware, found) / measured - 1)))
    say(
        f"at most {max(hardware.flops.values()) / 1e9:.0f} Gflop/s, "
        f"{hardware.memory_bytes_per_s / 1e9:.1f} GB/s of memory; "
        f"the simulators say the {len(found.calls)} measured calls to within {error:.0%} (median)"
    )


def _model(folder: Path, layers: int, hidden: int, ffn: int, heads: int, kv_heads: int) -> Path:
    made, tokenizer = model.addition_model(
        layers=layers, hidden=hidden, ffn=ffn, heads=heads, kv_heads=kv_heads, positions=POSITIONS, seed=1
    )
    model.write_model(folder, made, tokenizer)
    return folder


def _source(gpus: int) -> str:
    return f"measured by hybridflow profile {__version__} on {date.today():%Y-%m-%d}: {_device(gpus)}"


def _device(gpus: int) -> str:
    if gpus:
        import torch

        return f"{gpus} x {torch.cuda.get_device_name()}"
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else machine.processor() or machine.machine()
