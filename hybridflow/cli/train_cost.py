"""`hybridflow train-cost`: a cost model, from preferences of a task that says what is harmful."""

from __future__ import annotations

from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow train-cost ARGV`; the exit status. Raises ConfigError for settings that cannot be run."""
    from hybridflow.cli.launch import launch

    return launch("train-cost", argv)
