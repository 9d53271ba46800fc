"""What each side of a call imports: the controller nothing of the other but messages, a rank no torch by itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

HEAVY = ("torch", "transformers", "megatron", "vllm", "hybridflow.engines", "hybridflow.workers.model_worker")
OTHER_SIDE = ("hybridflow.runtime.rank", "hybridflow.workers")


def imported_by(module: str) -> set[str]:
    """The modules in a new process that has imported only this one."""
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("hybridflow.controller", {*HEAVY, *OTHER_SIDE}),
        ("hybridflow.algorithms", {*HEAVY, *OTHER_SIDE}),
        ("hybridflow.runtime.messages", {*HEAVY, *OTHER_SIDE}),
        ("hybridflow.runtime.rank", set(HEAVY)),
    ],
)
def test_it_does_without(module: str, unwanted: set[str]) -> None:
    found = imported_by(module)
    assert module in found
    assert not unwanted & found
