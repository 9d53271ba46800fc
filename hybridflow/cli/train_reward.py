"""`hybridflow train-reward`: a reward model, from a task's preferences."""

from __future__ import annotations

from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow train-reward ARGV`; the exit status. Raises ConfigError for settings that cannot be run."""
    from hybridflow.cli.launch import launch

    return launch("train-reward", argv)
