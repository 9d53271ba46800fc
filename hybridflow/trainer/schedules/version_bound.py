"""VersionBound: what ranks find of the age of the weights that sampled, held against what a schedule promises."""

from __future__ import annotations

from collections.abc import Mapping

from hybridflow.algorithms.algorithm import Algorithm
from hybridflow.errors import HybridFlowError


class VersionBound:
    """Bound of a schedule on the age of weights, in optimizer steps, of which a step may take several.

    Args:
        max_staleness: in steps.
    """

    def __init__(self, algorithm: Algorithm, max_staleness: int) -> None:
        self._algorithm = algorithm
        self._max_staleness = max_staleness
        self._updates: list[int] = []  # of the last steps, as many as rows may be sampled within

    def check(self, metrics: Mapping[str, float]) -> int:
        """Return by how many optimizer steps the weights of a step's rows may have been older.

        Raises HybridFlowError if ranks have learned from rows whose weights are older than that.

        Args:
            metrics: of a step; a flow may take more optimizer steps than it plans.
        """
        lag = metrics.get("rollout/version_lag_max", 0.0)
        config = self._algorithm.config
        warm = config.critic_warmup_steps  # in which the actor takes none
        planned = [self._algorithm.planned_updates(config, "actor", warm + steps) for steps in (0, 1)]
        updates = max(planned[1] - planned[0], int(metrics.get("actor/updates", 0.0)))
        span = self._max_staleness + 1
        self._updates = [*(self._updates or [updates] * span), updates][-span:]
        fewer_than = sum(self._updates)
        if lag >= fewer_than:
            raise HybridFlowError(
                f"rows were learned from whose weights were {lag:.0f} optimizer steps older (rollout/version_lag_max); "
                f"with {updates} a step, a staleness of {self._max_staleness} allows fewer than {fewer_than}"
            )
        return fewer_than - 1
