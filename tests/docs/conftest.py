"""A person's working directory, and commands run in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import forked_ranks
from tests.docs.blocks import commands, write_files

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Meets = Callable[[str], list[str]]
Problems = Callable[[list[list[str]]], list[list[str]]]

# Torch is imported once, and each command is checked in a process that knows nothing of the others' plugins.
CHECK = """
import json, multiprocessing, sys
import hybridflow.losses.advantages, hybridflow.losses.policy_losses
from hybridflow import preflight
from hybridflow.config import compose, plugins

def check(command):
    subcommand, *overrides = command[1:]
    folder = overrides.pop(overrides.index("-cd") + 1) if "-cd" in overrides else None
    overrides = [argument for argument in overrides if argument != "-cd"]
    plugins.load(plugins.named(subcommand, overrides, folder))
    return preflight.problems(compose.compose(subcommand, overrides, folder).to_config())

with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    print(json.dumps(pool.map(check, json.loads(sys.argv[1]), chunksize=1)))
"""


@pytest.fixture
def run(tmp_path: Path, forks: dict[str, str]) -> Run:
    """`run("python", "score.py")`: in the test's own folder, with its interpreter and commands, and forked ranks."""

    def start(*command: str, timeout_s: float = 280.0) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **forks}
        started = forked_ranks.command(*command[command[0] == "python" :], environment=forks)
        done = subprocess.run(
            started, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done

    return start


@pytest.fixture
def meets(tmp_path: Path, run: Run) -> Meets:
    """`meets(page)`: the expectations that its `hybridflow check` of its files meets, which are all that it tries."""

    def check(page: str) -> list[str]:
        write_files(page, tmp_path)
        (command,) = commands(page, "hybridflow check")
        lines = run(*command).stdout.splitlines()
        assert lines[-1] == "all expectations are met"
        return [line.removeprefix("  ok     ") for line in lines if line.startswith("  ")]

    return check


@pytest.fixture
def problems(tmp_path: Path, run: Run) -> Problems:
    """`problems(commands)`: of each `hybridflow …`, what is wrong with it before anything starts."""
    (tmp_path / "check_commands.py").write_text(CHECK)
    return lambda commands: json.loads(run("python", "check_commands.py", json.dumps(commands)).stdout)
