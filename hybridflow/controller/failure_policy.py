"""FailurePolicy: how a run goes on, or ends, once a call has failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, Protocol

import ray

from hybridflow.runtime.failure import FailureKind, RoleError


class RankSource(Protocol):
    """Holds the ranks of a role, and is asked for them at each call: a pool may be given others while groups live."""

    @property
    def ranks(self) -> Sequence[Any]:
        """Ray actors, by rank."""


class FailurePolicy(Protocol):
    """Decides what becomes of the ranks, and of what was under way, after a failure."""

    def handle(self, error: RoleError, pools: Iterable[RankSource]) -> NoReturn:
        """Deal with the ranks of all pools, and raise what whoever waits for a call is told.

        Args:
            error: the first failure, and what followed from it. To raise it ends the run.
        """


class RaiseFirst:
    """Ends every rank and raises the first failure.

    The other ranks of a group may wait for the one that failed in a collective, which only their end can interrupt.
    """

    def handle(self, error: RoleError, pools: Iterable[RankSource]) -> NoReturn:
        for pool in pools:
            for rank in pool.ranks:
                ray.kill(rank)
        raise error


class RaiseToRecover:
    """Raises the first failure and leaves the ranks to whoever recovers, if the same may succeed on other processes."""

    def handle(self, error: RoleError, pools: Iterable[RankSource]) -> NoReturn:
        if error.failure.kind is not FailureKind.INFRA:
            RaiseFirst().handle(error, pools)
        raise error
