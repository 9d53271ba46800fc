"""`hybridflow sft`: supervised training on a task's own answers."""

from __future__ import annotations

from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow sft ARGV`; the exit status. Raises ConfigError for settings that cannot be run."""
    from hybridflow.cli.launch import launch

    return launch("sft", argv)
