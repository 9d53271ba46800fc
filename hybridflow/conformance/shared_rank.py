"""Ranks that try one algorithm after another on the same engines. Light: no torch."""

from __future__ import annotations

from dataclasses import replace

from hybridflow.config.schema import AlgorithmConfig
from hybridflow.conformance import graders_for_trials  # noqa: F401  registers the graders that the settings name
from hybridflow.runtime.rank import Rank


class SharedRank(Rank):
    """Rank that hands its roles the settings of another algorithm, so that all share the engines that were started."""

    def take_up(self, algorithm: AlgorithmConfig) -> bytes:
        """Let every role of this process go by these settings from its next call on; report it."""

        def hand_over() -> None:
            for context in self._contexts.values():
                context.config = replace(context.config, algorithm=algorithm)

        return self._reported("conformance", "take_up", hand_over)
