"""`hybridflow train`: reinforcement learning, as the chosen experiment and algorithm say."""

from __future__ import annotations

from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow train ARGV`; the exit status. Raises ConfigError for settings that cannot be run."""
    from hybridflow.cli.launch import launch

    return launch("train", argv)
