"""Ranks that try one algorithm after another on the same engines, and graders for it. Light: no torch."""

from __future__ import annotations

from dataclasses import replace

from hybridflow.config.schema import AlgorithmConfig
from hybridflow.runtime.rank import Rank
from hybridflow.tasks import graders


class SharedRank(Rank):
    """Rank that hands its roles the settings of another algorithm, so that all share the engines that were started."""

    def take_up(self, algorithm: AlgorithmConfig) -> bytes:
        """Let every role of this process go by these settings from its next call on; report it."""

        def hand_over() -> None:
            for context in self._contexts.values():
                context.config = replace(context.config, algorithm=algorithm)

        return self._reported("conformance", "take_up", hand_over)


@graders.register("conformance_even")
def even(response: str, answer: str) -> float:
    """Grade so that a random model is as often right as wrong."""
    return float(sum(map(ord, response)) % 2 == 0)


@graders.register("conformance_count")
def count(response: str, answer: str) -> float:
    """Count the characters of a response: a cost that always varies."""
    return float(len(response))
