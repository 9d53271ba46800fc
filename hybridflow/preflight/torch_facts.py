"""What torch says of this machine. Run as a program it prints that as JSON, so that a torch which does not survive its
own import, as on a CPU without the instructions that it was built for, ends that process alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass

from hybridflow.observe import terminal

MODULE = "hybridflow.preflight.torch_facts"
WITHIN_S = 120.0


@dataclass(frozen=True)
class TorchFacts:
    """What torch sees.

    Attributes:
        error: why it could not be asked; all else is empty then.
        built_for: the library of GPUs that it was built for, as `CUDA 12.8`; "": it is a CPU build, whatever its
            version is called (PyPI's for aarch64 has no `+cpu`).
        capability: the instructions that its CPU kernels use: `AVX512`, `AVX2`, `DEFAULT`, …
        bf16: whether the CPU has bfloat16 instructions.
        gpus: the names of the GPUs that it can use.
    """

    version: str = ""
    error: str = ""
    built_for: str = ""
    capability: str = ""
    bf16: bool = False
    gpus: tuple[str, ...] = ()


def torch_facts() -> TorchFacts:
    """Ask torch in a process of its own, which takes some seconds."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", MODULE], capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return TorchFacts(error=f"its import took longer than {WITHIN_S:.0f} s")
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        return TorchFacts(**(answer | {"gpus": tuple(answer["gpus"])}))
    except (IndexError, ValueError, TypeError, KeyError):
        last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        return TorchFacts(error=last)


def _ask() -> TorchFacts:
    import torch

    from hybridflow.parallel import bf16
    from hybridflow.parallel.platform import platform

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    libraries = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip, "XPU": getattr(torch.version, "xpu", None)}
    gpus = tuple(names) if platform().accelerated else ()
    return TorchFacts(
        version=str(torch.__version__),
        built_for=next((f"{name} {own}" for name, own in libraries.items() if own), ""),
        capability=torch.backends.cpu.get_cpu_capability(),
        bf16=not bf16.needed(),
        gpus=gpus,
    )


if __name__ == "__main__":
    terminal.say(json.dumps(asdict(_ask())))
