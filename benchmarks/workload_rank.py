"""Ranks that take steps of one workload after another on the same engines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hybridflow.config.schema import AlgorithmConfig, RolloutConfig
from hybridflow.runtime.rank import Rank


class WorkloadRank(Rank):
    """Rank that hands its roles the settings of another workload, and its engines another size of micro-batches."""

    def take_up(self, algorithm: AlgorithmConfig, rollout: RolloutConfig, micro_tokens: int) -> bytes:
        """Let every role of this process go by these settings from its next call on; report it."""

        def hand_over() -> None:
            for context in self._contexts.values():
                own = replace(rollout, vocabulary=context.config.rollout.vocabulary)
                context.config = replace(context.config, algorithm=algorithm, rollout=own)
            for worker in self._workers.values():
                engine: Any = getattr(worker, "engine", None)
                if engine is not None:
                    engine.budget = micro_tokens

        return self._reported("benchmarks", "take_up", hand_over)
